//! Every command that the program's own texts, README or a page of `specs/` name is in the table.

use super::COMMANDS;
use crate::command::GLOBAL_FLAGS;
use std::fs;
use std::path::{Path, PathBuf};

/// What may stand before a command line that is quoted in prose or in code.
const BEFORE: &[&str] = &["\"", "`", ": ", "&& ", "$ ", "| "];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) && !path.ends_with(file!()) {
            found.push(path);
        }
    }
    found
}

/// The command lines in a text: what follows `claudemesh` where a command line may begin, and what
/// stands in backticks and begins like a command.
fn command_lines(text: &str) -> impl Iterator<Item = &str> {
    let called = text.match_indices("claudemesh ").filter_map(|(at, name)| {
        let before = &text[..at];
        let begins = before.is_empty() || BEFORE.iter().any(|it| before.ends_with(it));
        begins.then(|| &text[at + name.len()..])
    });
    let begins = |line: &str| {
        let first = |text: &str| text.split(' ').next().map(str::to_owned);
        line.contains(' ') && COMMANDS.iter().any(|command| first(command.name) == first(line))
    };
    let quoted = text.split('`').skip(1).step_by(2).filter(move |line| begins(line));
    let ends = ['"', '`', '\n', '\'', '|', '&', '#', ';', '('];
    called.chain(quoted).filter_map(move |line| line.split(ends).next())
}

/// What is wrong with a command line, if anything is.
fn complaint(line: &str) -> Option<String> {
    let clean = |word: &str| word.trim_end_matches([',', '.', ':', '\\', ')', ']']).to_owned();
    let is_word = |text: &&str| text.starts_with(|c: char| c.is_ascii_lowercase());
    let words: Vec<String> = line.split(' ').take_while(is_word).map(clean).collect();
    let called = (1..=words.len()).rev().find_map(|length| {
        let command = COMMANDS.iter().find(|command| command.is_called(&words[..length]))?;
        Some((command, words.len() - length))
    });
    let Some((command, operands)) = called else {
        let is_group = COMMANDS.iter().any(|command| command.begins_with(&words));
        return (!is_group).then(|| format!("`{line}` is no command"));
    };
    if operands > 0 && command.operands.is_empty() {
        return Some(format!("`{line}` has an operand too many"));
    }
    let flags = line.split(' ').filter_map(|word| word.trim_start_matches('[').strip_prefix("--"));
    let mut names = flags.map(|flag| clean(flag.split(['=', '[']).next().unwrap_or_default()));
    let known = |name: &String| {
        let mut known = command.flags.iter().chain(GLOBAL_FLAGS);
        name.is_empty() || known.any(|flag| flag.long == name)
    };
    names.find(|name| !known(name)).map(|name| format!("`{line}` has no flag --{name}"))
}

fn complaints(file: &Path, text: &str) -> Vec<String> {
    let wrong = command_lines(text).filter_map(complaint);
    wrong.map(|wrong| format!("{}: {wrong}", file.display())).collect()
}

#[test]
fn a_command_line_is_found_and_judged() {
    for (text, is_good) in [
        ("see `claudemesh daemon recover`", true),
        ("a claudemesh broker's address", true),
        ("start it: claudemesh daemon down && claudemesh daemon up", true),
        ("\"claudemesh send '#deploys' 'going out' --wait=5s\"", true),
        ("`daemon up` where it has ended", true),
        ("`claudemesh daemon`", true),
        ("see `claudemesh daemon logs`", false),
        ("`daemon remint`", false),
        ("restart: claudemesh daemon restart", false),
        ("`claudemesh daemon status now`", false),
        ("`claudemesh daemon up --faithful`", false),
    ] {
        let wrong = command_lines(text).find_map(complaint);
        assert_eq!(wrong.is_none(), is_good, "{text}: {wrong:?}");
    }
}

#[test]
fn what_the_program_or_readme_names_is_a_command() {
    let mut wrong = Vec::new();
    for file in ["src", "fsm/src"].iter().flat_map(|dir| files(&root().join(dir), "rs")) {
        let source = fs::read_to_string(&file).expect("a file");
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        wrong.extend(complaints(&file, &code.collect::<Vec<_>>().join("\n")));
    }
    let readme = root().join("README.md");
    wrong.extend(complaints(&readme, &fs::read_to_string(&readme).expect("the page")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A page may also name what is planned, if `specs/roadmap.md` has it in backticks.
#[test]
fn what_a_page_names_is_a_command_or_on_the_roadmap() {
    let specs = root().join("specs");
    let roadmap = fs::read_to_string(specs.join("roadmap.md")).expect("the roadmap");
    let mut wrong = Vec::new();
    for page in files(&specs, "md").iter().filter(|page| !page.ends_with("roadmap.md")) {
        wrong.extend(complaints(page, &fs::read_to_string(page).expect("a page")));
    }
    let planned = roadmap.split('`').skip(1).step_by(2);
    let planned: Vec<_> = planned.map(|name| name.trim_start_matches("claudemesh ")).collect();
    wrong.retain(|wrong| !planned.iter().any(|name| wrong.contains(&format!("`{name}"))));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
