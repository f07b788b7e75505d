//! Shell completions, made from the table: command words, then the command's flags.

use super::args::Parsed;
use super::context::Context;
use super::exit;
use super::failure::Failure;
use super::table::{COMMANDS, Command, GLOBAL_FLAGS};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// `completions <shell>`
pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let script = match parsed.operands[0].as_str() {
        "bash" => bash(),
        // zsh runs bash completions once it is told to.
        "zsh" => {
            format!("#compdef claudemesh\nautoload -U +X bashcompinit && bashcompinit\n{}", bash())
        }
        "fish" => fish(),
        other => {
            return Err(Failure::usage(format!(
                "<shell> is {other:?}; expected bash, zsh or fish"
            )));
        }
    };
    context.print.text(&script)?;
    Ok(exit::OK)
}

fn shown() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(|command| !command.is_hidden)
}

/// What may follow each beginning of a command: further words, or its flags.
fn followers() -> BTreeMap<String, BTreeSet<String>> {
    let mut after: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for command in shown() {
        for name in command.names() {
            for length in 0..name.len() {
                let before = name[..length].join(" ");
                after.entry(before).or_default().insert(name[length].to_owned());
            }
            let flags = command.shown_flags().chain(GLOBAL_FLAGS);
            let flags = flags.map(|flag| format!("--{}", flag.long));
            after.entry(name.join(" ")).or_default().extend(flags);
        }
    }
    after
}

fn bash() -> String {
    let mut script = String::from(
        "_claudemesh() {\n  local word line=\"\"\n  \
         for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    \
         case \"$word\" in -*) ;; *) line=\"${line:+$line }$word\" ;; esac\n  done\n  \
         local words=\"\"\n  while :; do\n    case \"$line\" in\n",
    );
    for (before, words) in followers() {
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

fn fish() -> String {
    let mut script = String::from("complete -c claudemesh -f\n");
    let mut line = |text: String| {
        script.push_str(&text);
        script.push('\n');
    };
    for command in shown() {
        for name in command.names() {
            let (last, before) = name.split_last().expect("every command has a name: tested");
            let seen = |words: &[&str]| {
                let conditions = words.iter().map(|w| format!("__fish_seen_subcommand_from {w}"));
                conditions.collect::<Vec<_>>().join("; and ")
            };
            let condition =
                if before.is_empty() { "__fish_use_subcommand".to_owned() } else { seen(before) };
            let about = command.about.replace('\'', "\\'");
            line(format!("complete -c claudemesh -n '{condition}' -a {last} -d '{about}'"));
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
