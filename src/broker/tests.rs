//! What ends a broker besides being asked to.

use super::testing::TestBroker;
use super::*;

#[test]
fn a_broker_whose_ledger_is_lost_ends_with_an_error() {
    let TestBroker { parts, sqlite, executor, dir, .. } = TestBroker::new(Settings::default());
    let runtime = Runtime::real(Arc::clone(&executor));
    let ended = smol::block_on(executor.run(async {
        let tcp = bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
        let admin = data_dir::bind_admin(&dir.path().join(admin::SOCKET_NAME)).expect("binds");
        let (_asked, shutdown) = Shutdown::new();
        let panicked = runtime.spawn(async move { sqlite.break_down().await });
        let serving = Box::pin(serve(parts, tcp, admin, runtime.clone(), shutdown));
        let ended = runtime.timeout(Duration::from_secs(10), serving).await;
        panicked.await;
        ended
    }));
    assert!(matches!(ended, Some(Err(BrokerError::Ledger(_)))), "{ended:?}");
}
