//! The one table of commands and flags: parsing, help and completions read it, and each entry
//! names what acts. A command that is not here does not exist.

use super::args::Parsed;
use super::context::Context;
use super::failure::Failure;
use super::{
    broker, complete, daemon, demo, events, inbox, member, mesh, outbox, peers, recover, retire,
    send, up,
};

/// What acts on a command: the exit code, or why not.
pub(super) type Run = fn(&Context, &Parsed) -> Result<u8, Failure>;

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    /// Its name, word by word.
    pub(super) words: &'static [&'static str],
    /// Its other names.
    pub(super) aliases: &'static [&'static [&'static str]],
    pub(super) operands: &'static [Operand],
    pub(super) flags: &'static [Flag],
    /// One line.
    pub(super) about: &'static str,
    /// What the line leaves open.
    pub(super) details: &'static str,
    pub(super) examples: &'static [&'static str],
    /// Understood, but not shown.
    pub(super) is_hidden: bool,
    pub(super) run: Run,
}

/// A word behind a command.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) name: &'static str,
    pub(super) required: bool,
    /// Takes all words that are left.
    pub(super) repeats: bool,
}

/// A flag, without its `--`.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) long: &'static str,
    pub(super) takes: Takes,
    /// What it does; empty for one that is understood and not shown.
    pub(super) about: &'static str,
}

/// What stands behind a flag, with its name in help.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    /// One value; the last one counts.
    One(&'static str),
    /// One value each time.
    Many(&'static str),
    /// A value, but only with `=`.
    Maybe(&'static str),
}

use Takes::{Many, Maybe, Nothing, One};

impl Command {
    /// Its name and its aliases.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static [&'static str]> + use<> {
        std::iter::once(self.words).chain(self.aliases.iter().copied())
    }

    /// The flags that are shown.
    pub(super) fn shown_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().filter(|flag| !flag.about.is_empty())
    }

    pub(super) fn is_called(&self, words: &[String]) -> bool {
        self.names().any(|name| name == words)
    }

    pub(super) fn begins_with(&self, words: &[String]) -> bool {
        self.names().any(|name| name.len() > words.len() && name[..words.len()] == *words)
    }
}

const fn flag(long: &'static str, takes: Takes, about: &'static str) -> Flag {
    Flag { long, takes, about }
}

const fn needs(name: &'static str) -> Operand {
    Operand { name, required: true, repeats: false }
}

const fn needs_some(name: &'static str) -> Operand {
    Operand { name, required: true, repeats: true }
}

const fn may_have_some(name: &'static str) -> Operand {
    Operand { name, required: false, repeats: true }
}

/// What every command takes.
pub(super) const GLOBAL_FLAGS: &[Flag] = &[
    flag("home", One("dir"), "use this directory instead of ~/.claudemesh"),
    flag("json", Nothing, "answer in JSON, also when something fails"),
    flag("help", Nothing, "explain the command"),
    flag("version", Nothing, "print the version"),
];

const PLAIN: Command = Command {
    words: &[],
    aliases: &[],
    operands: &[],
    flags: &[],
    about: "",
    details: "",
    examples: &[],
    is_hidden: false,
    run: super::run_version,
};

const DATA: Flag = flag("data", One("dir"), "the broker's data directory");
const ITS_MESH: Flag = flag("mesh", One("slug"), "in this mesh, where the broker has several");
/// Who a member verb is about.
const WHO: &str = "<who> is a member's name, id, key, or the first 8 digits of its key or more.";

const ONE_MESH: Flag = flag("mesh", One("slug"), "only this mesh");

/// Every command, in the order of the help page.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        words: &["daemon", "up"],
        aliases: &[&["daemon", "start"]],
        flags: &[
            flag("foreground", Nothing, "stay, and write the log to standard error (services)"),
            flag("detached", Nothing, ""),
            flag("local", Nothing, "also run the embedded broker, with a mesh `local`"),
            flag("listen", One("addr"), "where the embedded broker listens (with --local)"),
            flag("mesh", Many("slug"), "serve only this mesh; may be repeated"),
            flag("name", One("name"), "the name peers see"),
            flag("no-tcp", Nothing, "listen on the Unix socket alone"),
            flag("tcp", Nothing, "listen on loopback TCP too, also in a container or in CI"),
            flag("persistent", Nothing, "in CI, behave as anywhere else"),
            flag("public-health", Nothing, "answer GET /v1/health on TCP without the token"),
            flag("allow-legacy-broker", Maybe("slug"), "accept a broker that does not deduplicate"),
        ],
        about: "start the daemon",
        details: "Detaches, and returns once the daemon answers and every link has its first \
                  verdict (at most 5 s). A daemon that already runs is left alone.",
        examples: &["claudemesh daemon up", "claudemesh daemon up --local"],
        run: up::run,
        ..PLAIN
    },
    Command {
        words: &["daemon", "status"],
        aliases: &[&["daemon", "ps"], &["status"]],
        about: "is it running, and how are its links and its outbox",
        details: "Exits 3 when the daemon is not running.",
        examples: &["claudemesh daemon status", "claudemesh daemon status --json"],
        run: daemon::status,
        ..PLAIN
    },
    Command {
        words: &["daemon", "version"],
        about: "which daemon runs, and what it serves",
        examples: &["claudemesh daemon version --json"],
        run: daemon::version,
        ..PLAIN
    },
    Command {
        words: &["daemon", "down"],
        aliases: &[&["daemon", "stop"]],
        about: "stop the daemon, and wait until it is gone",
        details: "Exits 0 when there is nothing to stop.",
        examples: &["claudemesh daemon down"],
        run: daemon::down,
        ..PLAIN
    },
    Command {
        words: &["daemon", "reload"],
        about: "read config.toml and config.json again, and dial what is down",
        details: "Attaches meshes that were joined. Links that wait or were refused dial at once; \
                  open ones stay. Exits 3 when the daemon is not running.",
        examples: &["claudemesh daemon reload"],
        run: daemon::run_reload,
        ..PLAIN
    },
    Command {
        words: &["daemon", "recover"],
        flags: &[
            flag("check", Nothing, "look and change nothing (the default)"),
            flag("salvage", Nothing, "keep every readable row in a new file, list the rest"),
            flag("fresh", Nothing, "set a damaged file aside, start empty"),
        ],
        about: "examine or repair damaged databases, while no daemon runs",
        details: "Only a damaged file is ever replaced, and it is set aside, not deleted. Exits 5 \
                  when a file is damaged and stays so, or when a daemon runs.",
        examples: &["claudemesh daemon recover --check", "claudemesh daemon recover --salvage"],
        run: recover::run,
        ..PLAIN
    },
    Command {
        words: &["daemon", "outbox", "list"],
        aliases: &[&["outbox", "list"]],
        flags: &[
            flag("pending", Nothing, "only what waits"),
            flag("inflight", Nothing, "only what is being sent"),
            flag("done", Nothing, "only what the broker has"),
            flag("failed", Nothing, "only what the broker refused, or what expired"),
            flag("aborted", Nothing, "only what was requeued or given up"),
            ONE_MESH,
            flag("limit", One("n"), "at most this many (50)"),
        ],
        about: "what was sent, newest first",
        examples: &["claudemesh outbox list --failed"],
        run: outbox::list,
        ..PLAIN
    },
    Command {
        words: &["daemon", "outbox", "requeue"],
        aliases: &[&["outbox", "requeue"]],
        operands: &[Operand { name: "id", required: false, repeats: false }],
        flags: &[
            flag("new-client-id", One("id"), "the id of the new message; else minted"),
            flag("patch-payload", One("file"), "send this instead; - reads standard input"),
            flag("force", Nothing, "also when an attempt may have reached the broker"),
            flag("id", One("id"), "older spelling of <id>"),
            flag("new-id", One("id"), "older spelling of --new-client-id"),
            flag("auto", Nothing, "older spelling of no --new-client-id"),
        ],
        about: "send a failed message again, under a new id",
        details: "<id> is the row's id in `outbox list`. The old row stays, as aborted.",
        examples: &[
            "claudemesh outbox requeue 01JD8Q4M700000000000000042",
            "echo shorter | claudemesh outbox requeue 01JD8Q4M700000000000000042 --patch-payload -",
        ],
        run: outbox::requeue,
        ..PLAIN
    },
    Command {
        words: &["daemon", "outbox", "inspect"],
        aliases: &[&["outbox", "inspect"]],
        operands: &[needs("id")],
        about: "one row, and what took its place",
        details: "<id> is the row's id in `outbox list`.",
        examples: &["claudemesh outbox inspect 01JD8Q4M700000000000000042"],
        run: retire::inspect,
        ..PLAIN
    },
    Command {
        words: &["daemon", "outbox", "abort"],
        aliases: &[&["outbox", "abort"]],
        operands: &[needs("id")],
        about: "give up a message that waits or has failed",
        details: "<id> is the row's id in `outbox list`. Nothing is sent in its place; the row \
                  stays, as aborted, and its id stays taken.",
        examples: &["claudemesh outbox abort 01JD8Q4M700000000000000042"],
        run: retire::abort,
        ..PLAIN
    },
    Command {
        words: &["daemon", "outbox", "prune"],
        aliases: &[&["outbox", "prune"]],
        flags: &[
            flag("before", One("age"), "rows finished before then: 7d, or 2025-06-15T15:06:40Z"),
            flag("confirm", Nothing, "do it; without it, only say how many rows it would be"),
        ],
        about: "make finished rows small now, not when they are 30 days old",
        details: "Done and aborted rows keep what a retry is answered from, and lose their body \
                  and the rest for good. What waits, is being sent, or has failed is not touched.",
        examples: &[
            "claudemesh outbox prune --before 7d",
            "claudemesh outbox prune --before 7d --confirm",
        ],
        run: retire::prune,
        ..PLAIN
    },
    Command {
        words: &["send"],
        operands: &[needs("to"), needs_some("message")],
        flags: &[
            flag("mesh", One("slug"), "in this mesh, where more than one could take it"),
            flag("priority", One("priority"), "now, next (default) or low"),
            flag("reply-to", One("id"), "the client_message_id this answers"),
            flag("meta", Many("k=v"), "a member of the message's meta; may be repeated"),
            flag("id", One("id"), "the message's id; the same id is never sent twice"),
            flag("wait", Maybe("30s"), "wait until the broker has it"),
            flag("delivered", Nothing, "wait until everybody it is for has stored it"),
        ],
        about: "send a message",
        details: "<to> is a public key, a name, @group, #topic or * for everybody. <message> - \
                  reads standard input. Only messages to one recipient are sealed end to end.\n\
                  With --wait: exit 0 when the broker has it, 1 when it never will, 6 when time \
                  is over.",
        examples: &[
            "claudemesh send bob 'hello'",
            "claudemesh send '#deploys' 'going out' --wait=5s",
            "git diff | claudemesh send bob - --meta kind=diff",
        ],
        run: send::run,
        ..PLAIN
    },
    Command {
        words: &["inbox"],
        flags: &[
            flag("follow", Nothing, "go on with what arrives, until Ctrl-C"),
            flag("unread", Nothing, "only what was not marked as seen"),
            ONE_MESH,
            flag("topic", One("topic"), "only this topic"),
            flag("from", One("who"), "only this sender: a public key, or a name in the roster"),
            flag("since", One("time"), "only from then on: 2h, or 2025-06-15T15:06:40Z"),
            flag("limit", One("n"), "at most this many (100)"),
            flag("mark-seen", Nothing, "mark what is shown as seen"),
        ],
        about: "what arrived",
        examples: &["claudemesh inbox --unread --mark-seen", "claudemesh inbox --follow --json"],
        run: inbox::run,
        ..PLAIN
    },
    Command {
        words: &["events"],
        flags: &[flag(
            "types",
            One("a,b"),
            "only these: message, outbox, broker_status, peer_join, peer_leave, system",
        )],
        about: "what happens, as it happens",
        examples: &["claudemesh events --types outbox,broker_status", "claudemesh events --json"],
        run: events::run,
        ..PLAIN
    },
    Command {
        words: &["peers"],
        flags: &[ONE_MESH],
        about: "who is there",
        examples: &["claudemesh peers --mesh demo"],
        run: peers::run,
        ..PLAIN
    },
    Command {
        words: &["join"],
        operands: &[needs("link")],
        flags: &[
            flag("name", One("name"), "the name peers see; else that of config.json, else $USER"),
            flag("as", One("slug"), "call the mesh this here"),
        ],
        about: "join a mesh with an invite link",
        details: "A running daemon attaches the mesh at once.",
        examples: &["claudemesh join http://127.0.0.1:7900/join/eyJ2Ijox… --name bob"],
        run: mesh::join,
        ..PLAIN
    },
    Command {
        words: &["mesh", "create"],
        operands: &[needs("slug")],
        flags: &[
            flag("name", One("name"), "the name peers see; else that of config.json, else $USER"),
            flag("data", One("dir"), "the broker's data directory"),
        ],
        about: "create a mesh on this machine's broker, and join it",
        examples: &["claudemesh mesh create demo"],
        run: mesh::create,
        ..PLAIN
    },
    Command {
        words: &["mesh", "list"],
        about: "the meshes joined here",
        examples: &["claudemesh mesh list"],
        run: mesh::list,
        ..PLAIN
    },
    Command {
        words: &["mesh", "invite"],
        operands: &[needs("slug")],
        flags: &[
            flag("expires", One("time"), "for how long it works (7d)"),
            flag("uses", One("n"), "for how many members (1)"),
            flag("role", One("role"), "member (default) or admin"),
            flag("data", One("dir"), "the broker's data directory"),
        ],
        about: "print an invite link, on the machine that runs the broker",
        examples: &["claudemesh mesh invite demo --expires 7d --uses 3"],
        run: mesh::invite,
        ..PLAIN
    },
    Command {
        words: &["member", "list"],
        flags: &[ITS_MESH, DATA],
        about: "who is in a mesh, on the machine that runs its broker",
        examples: &["claudemesh member list --mesh demo"],
        run: member::list,
        ..PLAIN
    },
    Command {
        words: &["member", "kick"],
        operands: &[needs("who")],
        flags: &[ITS_MESH, DATA],
        about: "close a member's connections",
        details: WHO,
        examples: &["claudemesh member kick bob"],
        run: member::kick,
        ..PLAIN
    },
    Command {
        words: &["member", "ban"],
        operands: &[needs("who")],
        flags: &[ITS_MESH, DATA],
        about: "keep a member out until it is unbanned; its mail waits",
        details: WHO,
        examples: &["claudemesh member ban bob --mesh demo"],
        run: member::ban,
        ..PLAIN
    },
    Command {
        words: &["member", "unban"],
        operands: &[needs("who")],
        flags: &[ITS_MESH, DATA],
        about: "let a banned member in again",
        details: WHO,
        examples: &["claudemesh member unban bob"],
        run: member::unban,
        ..PLAIN
    },
    Command {
        words: &["member", "revoke"],
        operands: &[needs("who")],
        flags: &[ITS_MESH, DATA],
        about: "end a membership for good; its mail is thrown away",
        details: WHO,
        examples: &["claudemesh member revoke 8139770ea87d175f"],
        run: member::revoke,
        ..PLAIN
    },
    Command {
        words: &["member", "block"],
        operands: &[needs("who"), needs("sender")],
        flags: &[ITS_MESH, DATA],
        about: "keep one member's direct messages from another",
        details: WHO,
        examples: &["claudemesh member block bob mallory"],
        run: member::block,
        ..PLAIN
    },
    Command {
        words: &["member", "unblock"],
        operands: &[needs("who"), needs("sender")],
        flags: &[ITS_MESH, DATA],
        about: "let them through again",
        details: WHO,
        examples: &["claudemesh member unblock bob mallory"],
        run: member::unblock,
        ..PLAIN
    },
    Command {
        words: &["broker"],
        flags: &[
            flag("listen", One("addr"), "where it listens (127.0.0.1:7900)"),
            flag("data", One("dir"), "its data directory; else ~/.claudemesh/daemon/broker"),
            flag("faithful", Nothing, "behave like today's network, faults included (for tests)"),
        ],
        about: "run a broker",
        details: "Stays until SIGTERM or Ctrl-C. One broker can carry many meshes.",
        examples: &[
            "claudemesh broker",
            "claudemesh broker --listen 0.0.0.0:7900 --data /srv/mesh",
        ],
        run: broker::run,
        ..PLAIN
    },
    Command {
        words: &["broker", "check"],
        flags: &[DATA],
        about: "prove that the broker's tables agree",
        details: "Exits 1 when they do not.",
        examples: &["claudemesh broker check", "claudemesh broker check --json"],
        run: broker::check,
        ..PLAIN
    },
    Command {
        words: &["broker", "audit"],
        flags: &[ITS_MESH, DATA],
        about: "who did what to a mesh, newest first",
        examples: &["claudemesh broker audit --mesh demo"],
        run: broker::audit,
        ..PLAIN
    },
    Command {
        words: &["demo"],
        about: "watch a broker and two daemons keep their promises, on this machine",
        details: "Starts them as real processes in a temporary directory, checks everything it \
                  tells, and removes it all again. Takes less than 10 s, touches nothing of \
                  yours, and needs no network. With --json: one object per step.",
        examples: &["claudemesh demo", "claudemesh demo --json"],
        run: demo::run,
        ..PLAIN
    },
    Command { words: &["version"], about: "print the version", ..PLAIN },
    Command {
        words: &["help"],
        operands: &[may_have_some("command")],
        about: "explain a command",
        run: super::run_help,
        ..PLAIN
    },
    Command {
        words: &["completions"],
        operands: &[needs("shell")],
        about: "print completions for bash, zsh or fish",
        examples: &[
            "claudemesh completions bash > ~/.local/share/bash-completion/completions/claudemesh",
            "claudemesh completions fish > ~/.config/fish/completions/claudemesh.fish",
        ],
        run: complete::run,
        ..PLAIN
    },
];
