//! What is sent, and what is said about it.

use super::*;
use crate::args::{Invocation, parse};
use crate::print::Printer;
use crate::table::COMMANDS;
use std::io::Write;
use std::os::unix::net::UnixListener;

/// What `send` makes of a daemon that answers one connection after the other; an empty answer
/// is none.
fn offered(answers: &[&str]) -> Failure {
    let home = tempfile::tempdir().expect("a directory");
    let context = Context::new(Printer::of_process(true), Some(home.path().into()));
    let context = context.expect("a context");
    std::fs::create_dir_all(&context.paths.daemon_dir).expect("created");
    let listener = UnixListener::bind(context.paths.socket()).expect("bound");
    let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
    let daemon = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.read(&mut [0; 4096]).expect("a request");
            stream.write_all(answer.as_bytes()).expect("written");
        }
    });
    let message = SendBody {
        to: "bob".into(),
        message: "x".into(),
        client_message_id: Some("order-17".into()),
        ..SendBody::default()
    };
    let failed = context.run(send(&context, &context.client(), &message));
    daemon.join().expect("every answer was asked for");
    failed.expect_err("no answer says yes")
}

fn problem(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Problem\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_answer_to_a_retry_does_not_speak_for_the_attempt_before_it() {
    let busy = problem(429, r#"{"error":"daemon_busy"}"#);
    let full = problem(503, r#"{"error":"too_many_connections"}"#);
    for answers in [
        &["", &busy, &busy][..],
        &["", &full, &busy],
        &["", &problem(503, "")],
        &["", &problem(503, r#"{"error":"store_damaged"}"#)],
    ] {
        let failure = offered(answers);
        assert_eq!(failure.code, "outcome_unknown", "{answers:?}");
        assert!(failure.message.contains("order-17"), "{}", failure.message);
    }
    for (answers, code) in [
        // Nobody can have taken it.
        (&[busy.as_str(); 3][..], "daemon_busy"),
        // Who answers like this knows the id.
        (&["", &problem(409, r#"{"error":"mesh_refused"}"#)], "mesh_refused"),
        (&["", &problem(507, r#"{"error":"insufficient_storage"}"#)], "insufficient_storage"),
    ] {
        assert_eq!(offered(answers).code, code, "{answers:?}");
    }
}

fn read(line: &[&str]) -> Result<SendBody, Failure> {
    match parse(COMMANDS, line.iter().map(Into::into).collect())? {
        Invocation::Run { parsed, .. } => message(&parsed, || "MINTED".to_owned()),
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn a_message_is_its_words_and_always_has_an_id() {
    let sent = read(&["send", "bob", "hello", "there", "--meta", "k=a=b"]).expect("good");
    assert_eq!(
        (sent.message.as_str(), sent.client_message_id.as_deref()),
        ("hello there", Some("MINTED"))
    );
    assert_eq!(sent.meta.expect("one").get(), r#"{"k":"a=b"}"#);
    let sent = read(&["send", "bob", "-x", "--id", "7"]);
    assert!(sent.is_err(), "a flag is no message without `--`");
    let sent = read(&["send", "--id", "7", "bob", "--", "-x"]).expect("good");
    assert_eq!((sent.message.as_str(), sent.client_message_id.as_deref()), ("-x", Some("7")));
}

#[test]
fn wrong_words_name_their_flag() {
    for (line, complaint) in [
        (&["send", "bob", ""][..], "<message> is empty"),
        (&["send", "bob", "x", "--priority", "urgent"], "--priority"),
        (&["send", "bob", "x", "--meta", "k"], "--meta"),
        (&["send", "bob", "x", "--meta", "=v"], "--meta"),
        (&["send", "bob", "x", "--meta", "k=1", "--meta", "k=2"], "twice"),
    ] {
        let refused = read(line).expect_err(complaint);
        assert!(refused.message.contains(complaint), "{}", refused.message);
        assert_eq!(refused.exit, exit::USAGE);
    }
    let long = vec![b'x'; usize::try_from(MESSAGE_BYTES_MAX).expect("fits") + 1];
    assert!(read_whole(&long[..], "it").expect_err("long").message.contains("longer than"));
    assert!(read_whole(&long[1..], "it").is_ok());
    assert!(read_whole(&b"\xFF"[..], "it").expect_err("bytes").message.contains("UTF-8"));
}
