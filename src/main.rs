//! The claudemesh binary.
fn main() {
    let home = std::env::args().skip_while(|a| a != "--home").nth(1).unwrap();
    let paths = claudemesh::paths::Paths::under(std::path::Path::new(&home)).unwrap();
    let mut settings = claudemesh::config::Settings::default();
    settings.ipc.tcp_enabled = false;
    let options = claudemesh::daemon::Options { paths, settings, only_meshes: vec![], local_broker: None, log_to_stderr: false };
    if let Err(e) = claudemesh::daemon::run(options) { eprintln!("{e}"); std::process::exit(1) }
}
