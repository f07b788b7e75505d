//! What ends a broker besides being asked to.

use super::testing::TestBroker;
use super::*;

#[test]
fn a_broker_whose_ledger_is_lost_ends_with_an_error() {
    let test = TestBroker::new(Settings::default());
    let broker = Arc::clone(&test.broker);
    let ended = test.run(async {
        let tcp = bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
        let admin = files::bind_admin(&broker.dir.join(admin::SOCKET_NAME)).expect("binds");
        let (_alarm, wakeups) = channel::bounded(1);
        let (alive, gone) = channel::bounded(1);
        *broker.alive.lock().expect("is whole") = Some(alive);
        let (_asked, shutdown) = Shutdown::new();
        let panicked = broker.runtime.spawn({
            let ledger = broker.ledger.clone();
            async move { ledger.break_down().await }
        });
        let serving = Box::pin(serve(Arc::clone(&broker), tcp, admin, wakeups, gone, shutdown));
        let ended = broker.runtime.timeout(Duration::from_secs(10), serving).await;
        panicked.await;
        ended
    });
    assert!(matches!(ended, Some(Err(BrokerError::Ledger(_)))), "{ended:?}");
}
