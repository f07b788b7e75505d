//! What is printed, and what is left out.

use super::*;

#[test]
fn nothing_a_terminal_would_obey_is_printed() {
    let hostile = "a\x1b[2J\x07b\u{9b}31m\r\u{202E}c\u{2066}\tд✔\0";
    assert_eq!(inline(hostile), "a[2Jb31mc д✔");
    assert!(inline(hostile).chars().all(|c| !c.is_control()));
}

#[test]
fn a_message_cannot_pass_for_a_line_of_ours() {
    assert_eq!(block("one\ndaemon stopped\r\n\x1b[1mtwo"), "one\n    daemon stopped\n    [1mtwo");
    assert_eq!(inline("one\ntwo"), "one two");
    assert_eq!(block(""), "");
}

#[test]
fn ages_and_columns_are_short() {
    let ages: Vec<_> = [0, 59, 60, 3_599, 3_600, 86_400 * 3].map(age).into();
    assert_eq!(ages, ["0 s", "59 s", "1 m", "59 m", "1 h", "3 d"]);
    let rows = [vec!["a".into(), "bb".into(), "x".into()], vec!["✔✔✔".into(), "b".into()]];
    assert_eq!(columns(&rows), "a    bb  x\n✔✔✔  b");
}

#[test]
fn colours_are_shown_only_where_they_are_wanted() {
    let plain = Printer { json: false, colour: false, notes: false };
    assert_eq!(plain.paint(Tone::Bad, "no"), "no");
    let colourful = Printer { colour: true, ..plain };
    assert_eq!(colourful.paint(Tone::Bad, "no"), "\x1b[31mno\x1b[0m");
}
