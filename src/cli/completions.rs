//! `completions`: scripts for shells, made from the declarations of the commands.

use super::command::{Command, GLOBAL_FLAGS, Parsed};
use super::{Context, Failure, exit};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

pub(super) const COMPLETIONS: Command = Command {
    name: "completions",
    operands: &["<shell>"],
    about: "print completions for bash, zsh or fish",
    examples: &[
        "claudemesh completions bash > ~/.local/share/bash-completion/completions/claudemesh",
        "claudemesh completions fish > ~/.config/fish/completions/claudemesh.fish",
    ],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let script = match parsed.operands[0].as_str() {
        "bash" => bash(parsed.commands),
        // zsh runs bash completions once it is told to.
        "zsh" => {
            let bash = bash(parsed.commands);
            format!("#compdef claudemesh\nautoload -U +X bashcompinit && bashcompinit\n{bash}")
        }
        "fish" => fish(parsed.commands),
        other => {
            let words = format!("<shell> is {other:?}; expected bash, zsh or fish");
            return Err(Failure::usage(words));
        }
    };
    context.print.text(&script).map(|()| exit::OK)
}

/// `daemon`, `daemon outbox`, `daemon outbox list`.
fn beginnings(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.match_indices(' ').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| &name[..end])
}

/// A beginning's last word, and what stands before it.
fn split_last(beginning: &str) -> (&str, &str) {
    beginning.rsplit_once(' ').unwrap_or(("", beginning))
}

/// What may follow each beginning of a command: further words, or its flags.
fn next_words(commands: &[Command]) -> BTreeMap<String, BTreeSet<String>> {
    let mut after: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for command in commands {
        for name in command.names() {
            for (before, word) in beginnings(name).map(split_last) {
                after.entry(before.to_owned()).or_default().insert(word.to_owned());
            }
            let flags = command.shown_flags().chain(GLOBAL_FLAGS);
            let flags = flags.map(|flag| format!("--{}", flag.long));
            after.entry(name.to_owned()).or_default().extend(flags);
        }
    }
    after
}

fn bash(commands: &[Command]) -> String {
    let mut script = String::from(
        "_claudemesh() {\n  local word line=\"\"\n  \
         for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    \
         case \"$word\" in -*) ;; *) line=\"${line:+$line }$word\" ;; esac\n  done\n  \
         local words=\"\"\n  while :; do\n    case \"$line\" in\n",
    );
    for (before, words) in next_words(commands) {
        let words = words.into_iter().collect::<Vec<_>>().join(" ");
        writeln!(script, "      \"{before}\") words=\"{words}\"; break ;;")
            .expect("a string takes every byte");
    }
    // Operands follow the command: shorten the line until a command is left.
    script.push_str(
        "      *\" \"*) line=\"${line% *}\" ;;\n      *) break ;;\n    esac\n  done\n  \
         COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n\
         complete -o default -F _claudemesh claudemesh\n",
    );
    script
}

fn fish(commands: &[Command]) -> String {
    let mut script = String::from("complete -c claudemesh -f\n");
    let mut line = |text: String| {
        script.push_str(&text);
        script.push('\n');
    };
    let mut offered = BTreeSet::new();
    for command in commands {
        for name in command.names() {
            let seen = |words: &str| {
                let words = words.split(' ');
                let conditions = words.map(|word| format!("__fish_seen_subcommand_from {word}"));
                conditions.collect::<Vec<_>>().join("; and ")
            };
            let about = command.about.replace('\'', "\\'");
            // A word that begins several commands is offered once.
            for beginning in beginnings(name).filter(|beginning| offered.insert(*beginning)) {
                let (before, word) = split_last(beginning);
                let condition = match before {
                    "" => "__fish_use_subcommand".to_owned(),
                    before => seen(before),
                };
                let offer = format!("complete -c claudemesh -n '{condition}' -a {word}");
                line(if beginning == name { format!("{offer} -d '{about}'") } else { offer });
            }
            for flag in command.shown_flags() {
                let about = flag.about.replace('\'', "\\'");
                let (condition, long) = (seen(name), flag.long);
                line(format!("complete -c claudemesh -n '{condition}' -l {long} -d '{about}'"));
            }
        }
    }
    for flag in GLOBAL_FLAGS {
        line(format!("complete -c claudemesh -l {} -d '{}'", flag.long, flag.about));
    }
    script
}
