//! Pages and code speak of the same things.

use super::source::{code_spans, fail, page, root, rows, sources, stale, tracked};
use std::collections::BTreeSet;
use std::fs;

/// The sections of the contract: numbered headings, and the table of `specs/README.md`.
fn sections() -> BTreeSet<String> {
    let mut sections = BTreeSet::new();
    for path in tracked().iter().filter(|p| p.starts_with("specs/") && p.ends_with(".md")) {
        // Its numbers are its own: it is no part of the contract.
        if path == "specs/architecture.md" {
            continue;
        }
        let text = fs::read_to_string(root().join(path)).expect("reads");
        for line in text.lines() {
            let heading = line.trim_start_matches('#').trim_start();
            if line.starts_with("##") && heading.starts_with(|c: char| c.is_ascii_digit()) {
                sections.extend(heading.split(' ').next().map(str::to_owned));
            }
            let is_row = path == "specs/README.md" && line.starts_with("| ");
            for cell in line.split('|').filter(|_| is_row) {
                let numbers = cell.split(',').map(str::trim);
                let is_number = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit());
                sections.extend(numbers.filter(is_number).map(str::to_owned));
            }
        }
    }
    assert!(sections.contains("4.5.1") && sections.contains("4.5b"), "{sections:?}");
    sections
}

#[test]
fn a_cited_section_exists() {
    let sections = sections();
    let mut found = Vec::new();
    for path in tracked().iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(root().join(path)).expect("is UTF-8");
        for (number, line) in text.lines().enumerate() {
            let mut before = "";
            for (at, cited) in line.split('§').enumerate() {
                let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == 'b';
                let end = cited.find(|c| !is_number(c)).unwrap_or(cited.len());
                let cited_number = cited[..end].trim_end_matches('.');
                // Another document's numbers, and this file's own words about numbers.
                let is_foreign = before.contains("RFC") || before.ends_with("architecture.md ");
                if at > 0 && !cited_number.is_empty() && !is_foreign {
                    let is_known = sections.contains(cited_number);
                    if !is_known || before.ends_with("protocol ") {
                        found.push(format!("{path}:{}: §{cited_number}", number + 1));
                    }
                }
                before = cited;
            }
        }
    }
    fail(
        "a § leads to a heading of specs/ (withdrawn numbers keep a line in specs/README.md)",
        &found,
    );
}

/// Exit codes that a page names and no command has.
const NO_SUCH_EXIT: &[&str] = &[];

#[test]
fn the_exit_codes_of_the_page_are_those_of_the_program() {
    let mut made: BTreeSet<String> = BTreeSet::new();
    for source in sources("src/cli/") {
        for line in source.code.lines().filter(|line| line.contains("const ")) {
            if let Some((_, code)) = line.split_once(": u8 = ") {
                made.extend(code.strip_suffix(';').map(str::to_owned));
            }
        }
    }
    let text = page("specs/cli.md");
    let section = text.split("Exit codes").nth(1).expect("specs/cli.md lists the exit codes");
    let section = section.split("\n#").next().unwrap_or_default();
    let named: BTreeSet<String> = rows(section)
        .filter_map(|cells| cells.first().map(|cell| cell.trim_matches('`').to_owned()))
        .filter(|cell| cell.parse::<u8>().is_ok())
        .collect();
    assert!(made.len() > 5 && named.len() > 5, "{made:?} {named:?}");
    let surplus: Vec<String> = named.difference(&made).cloned().collect();
    let mut found = stale(NO_SUCH_EXIT.iter().copied(), &surplus);
    found.extend(surplus.into_iter().filter(|code| !NO_SUCH_EXIT.contains(&code.as_str())));
    found.extend(made.difference(&named).map(|code| format!("{code} is not in specs/cli.md")));
    fail("a script trusts the table of exit codes", &found);
}

/// Files that a page names and no code does.
const NO_SUCH_FILE: &[&str] = &[];

#[test]
fn every_file_of_the_page_is_named_by_the_program() {
    let text = page("specs/process.md");
    let section = text.split("\n## 1.1 ").nth(1).expect("specs/process.md has a section 1.1");
    let section = section.split("\n## ").next().unwrap_or_default();
    let named: BTreeSet<String> = rows(section)
        .filter_map(|cells| cells.first().copied())
        .flat_map(|cell| code_spans(cell).collect::<Vec<_>>())
        .filter(|name| !name.starts_with('-'))
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    assert!(named.len() > 5, "{named:?}");
    let code: Vec<String> = sources("src/").into_iter().map(|source| source.code).collect();
    let is_named = |name: &str| {
        // Whole, or beside another file by its ending.
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let ways = [format!("\"{name}\""), format!("with_extension(\"{ending}\")")];
        code.iter().any(|code| ways.iter().any(|way| code.contains(way)))
    };
    let missing: Vec<String> = named.into_iter().filter(|name| !is_named(name)).collect();
    let mut found = stale(NO_SUCH_FILE.iter().copied(), &missing);
    found.extend(missing.into_iter().filter(|name| !NO_SUCH_FILE.contains(&name.as_str())));
    fail("specs/process.md §1.1 lists the files the program makes", &found);
}
