//! The hub's promises, with the time and the ledger's answers played by hand.

use super::outbound_queue::{KillSwitch, OUTGOING_MAX, OUTGOING_PAUSE_BYTES};
use super::*;
use crate::ledger::{QueuedMessage, Recipient};
use claudemesh_base::wire::{ClientAck, PushFrame};
use claudemesh_fsm::negotiate::ConnectionPolicy;

const LEASE: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(1000);

struct Wire {
    id: ConnectionId,
    outbound: OutboundQueue,
    outgoing: Receiver<Outgoing>,
    kill_switch: KillSwitch,
    woken: Receiver<()>,
}

impl Wire {
    /// Plays the writer: the next frame, written.
    fn written(&self) -> Option<Outgoing> {
        let outgoing = self.outgoing.try_recv().ok()?;
        self.outbound.on_written(outgoing.weight());
        Some(outgoing)
    }

    /// The ids of the pushes since the last look.
    fn pushed(&self) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(Outgoing::Frame(text)) = self.written() {
            ids.push(text.to_string());
        }
        ids
    }

    fn closed_with(&self) -> Option<u16> {
        while let Some(outgoing) = self.written() {
            if let Outgoing::Close(code, _) = outgoing {
                return Some(code);
            }
        }
        None
    }
}

fn hub() -> Hub {
    hub_for(8)
}

fn hub_for(connections_max: usize) -> Hub {
    let presence_lease = Duration::from_secs(90);
    Hub::new(Bounds { lease: LEASE, presence_lease, connections_max }, Arc::default()).0
}

fn identity(member: i64, session_id: &str) -> Identity {
    Identity {
        mesh_id: "m".into(),
        member,
        member_pubkey: format!("key{member}"),
        routing_key: format!("key{member}"),
        session_id: session_id.into(),
        ..Identity::default()
    }
}

fn try_admit(hub: &Hub, identity: Identity, policy: ConnectionPolicy) -> Result<Wire, Admission> {
    let (outbound, ConnectionEnds { outgoing, woken, kill_switch }) = OutboundQueue::new();
    match hub.admit(identity, outbound.clone(), policy) {
        Admission::Admitted(admitted_connection) => {
            Ok(Wire { id: admitted_connection.id, outbound, outgoing, kill_switch, woken })
        }
        other => Err(other),
    }
}

/// A connection that is open and caught up.
fn connect(hub: &Hub, identity: Identity) -> Wire {
    connect_under(hub, identity, ConnectionPolicy::PreferNewest)
}

fn connect_under(hub: &Hub, identity: Identity, policy: ConnectionPolicy) -> Wire {
    let Ok(wire) = try_admit(hub, identity, policy) else { panic!("is admitted") };
    hub.set_announced(wire.id);
    hub.open(wire.id);
    read(hub, &wire, &[]);
    wire
}

/// Plays the pump: reads what the ledger is said to have.
fn read(hub: &Hub, wire: &Wire, stored: &[i64]) {
    while let Some(read) = hub.next_read(wire.id) {
        let found = stored.iter().filter(|seq| **seq > read.after_seq).take(read.limit);
        let messages = found.map(|seq| queued(*seq)).collect();
        hub.deliver(wire.id, &read, messages, START);
    }
}

fn queued(seq: i64) -> QueuedMessage {
    QueuedMessage { seq, push: PushFrame { message_id: seq.to_string(), ..PushFrame::default() } }
}

fn offer(hub: &Hub, member: i64, seq: i64) {
    let recipient = Recipient { member, only_key: None };
    hub.offer(&recipient, seq, START, || EncodedPush {
        seq,
        message_id: seq.to_string(),
        client_message_id: None,
        frame: seq.to_string().into(),
    });
}

/// Plays the pump: the ledger takes what was acknowledged.
fn store_acks(hub: &Hub, wire: &Wire) {
    hub.settle_acks(wire.id, 1, &hub.unstored_acks(wire.id));
}

fn ack(seq: i64) -> ClientAck {
    ClientAck { broker_message_id: Some(seq.to_string()), client_message_id: None }
}

#[test]
fn a_message_committed_during_a_read_is_neither_lost_nor_pushed_before_older_ones() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    offer(&hub, 1, 1);
    assert_eq!(wire.pushed(), ["1"], "caught up: handed over at once");
    hub.reread_queue(wire.id);
    let running = hub.next_read(wire.id).expect("a read");
    offer(&hub, 1, 2);
    hub.deliver(wire.id, &running, vec![queued(1)], START);
    assert!(wire.pushed().is_empty(), "1 is leased already, 2 was not in the read");
    read(&hub, &wire, &[1, 2]);
    assert_eq!(wire.pushed().len(), 1);
    offer(&hub, 1, 3);
    assert_eq!(wire.pushed(), ["3"]);
}

#[test]
fn a_lease_that_ends_makes_its_message_free_and_an_acknowledged_one_stays_gone() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    offer(&hub, 1, 1);
    offer(&hub, 1, 2);
    assert_eq!(hub.next_deadline(), Some(START + LEASE));
    assert_eq!(hub.acknowledge(wire.id, &ack(1)), None);
    store_acks(&hub, &wire);
    wire.pushed();
    hub.expire_leases(START + LEASE);
    assert_eq!(hub.next_deadline(), None, "nothing leased, nothing to wait for");
    read(&hub, &wire, &[2]);
    assert_eq!(wire.pushed().len(), 1);
    assert_eq!(hub.acknowledge(wire.id, &ack(7)), Some("7".into()), "the ledger may know it");
}

#[test]
fn what_one_connection_held_goes_to_the_next_as_soon_as_it_ends() {
    let hub = hub();
    let member = connect(&hub, identity(1, "s"));
    let session = Identity { is_session: true, routing_key: "session".into(), ..identity(1, "t") };
    let session = connect(&hub, session);
    read(&hub, &member, &[]);
    offer(&hub, 1, 1);
    assert_eq!((session.pushed().len(), member.pushed().len()), (1, 0));
    assert!(hub.disconnect(session.id, START).is_some());
    read(&hub, &member, &[1]);
    assert_eq!(member.pushed().len(), 1);
    assert!(hub.disconnect(session.id, START).is_none(), "once");
}

#[test]
fn never_more_than_so_many_are_unacknowledged() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    hub.reread_queue(wire.id);
    let stored: Vec<i64> = (1..=1000).collect();
    read(&hub, &wire, &stored);
    assert_eq!(wire.pushed().len(), UNACKED_MAX);
    offer(&hub, 1, 1001);
    assert!(wire.pushed().is_empty());
    for seq in 1..=10 {
        hub.acknowledge(wire.id, &ack(seq));
    }
    store_acks(&hub, &wire);
    read(&hub, &wire, &stored);
    assert_eq!(wire.pushed().len(), 10);
}

#[test]
fn one_who_does_not_read_is_let_go_and_holds_nobody_up() {
    let hub = hub();
    let (deaf, fine) = (connect(&hub, identity(1, "a")), connect(&hub, identity(2, "b")));
    for _ in 0..=OUTGOING_MAX {
        hub.broadcast("m", &"news".into(), |_| true);
        fine.pushed();
    }
    assert!(deaf.kill_switch.kill.has_fired());
    assert!(!fine.kill_switch.kill.has_fired());
}

#[test]
fn one_who_reads_slowly_gets_no_more_mail_until_it_has_caught_up() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    let page: Outgoing = Outgoing::Frame("x".repeat(OUTGOING_PAUSE_BYTES - 5000).into());
    assert!(wire.outbound.send(page) && wire.outbound.has_room(), "one page is no backlog");
    hub.reread_queue(wire.id);
    let running = hub.next_read(wire.id).expect("a read");
    hub.deliver(wire.id, &running, (1..=10).map(queued).collect(), START);
    assert_eq!(wire.outgoing.len(), 3, "two messages fill it up");
    offer(&hub, 1, 11);
    assert_eq!(wire.outgoing.len(), 3);
    assert!(hub.next_read(wire.id).is_none());
    while wire.woken.try_recv().is_ok() {}
    assert_eq!(wire.pushed().len(), 3);
    assert!(wire.woken.try_recv().is_ok(), "the pump is told that there is room");
    read(&hub, &wire, &(1..=11).collect::<Vec<_>>());
    assert_eq!(wire.pushed().len(), 9, "those that waited and the new one");
}

#[test]
fn one_who_is_filled_up_by_others_is_let_go_by_bytes_too() {
    let hub = hub();
    let deaf = connect(&hub, identity(1, "a"));
    for _ in 0..17 {
        assert!(!deaf.kill_switch.kill.has_fired());
        hub.broadcast("m", &"x".repeat(1024 * 1024).into(), |_| true);
    }
    assert!(deaf.kill_switch.kill.has_fired());
}

#[test]
fn a_message_that_may_still_be_unwritten_is_not_pushed_again() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    offer(&hub, 1, 1);
    hub.expire_leases(START + LEASE);
    read(&hub, &wire, &[1]);
    assert_eq!(wire.pushed(), ["1"], "once");
    hub.expire_leases(START + LEASE * 2);
    read(&hub, &wire, &[1]);
    assert_eq!(wire.pushed().len(), 1, "it was written and not acknowledged");
}

#[test]
fn what_is_acknowledged_is_not_pushed_again_while_the_ledger_takes_nothing() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    offer(&hub, 1, 1);
    assert_eq!(wire.pushed(), ["1"]);
    hub.acknowledge(wire.id, &ack(1));
    for round in 1..=3 {
        assert_eq!(hub.unstored_acks(wire.id), [1]);
        hub.expire_leases(START + LEASE * round);
        hub.reread_queue(wire.id);
        read(&hub, &wire, &[1]);
        assert!(wire.pushed().is_empty());
    }
    store_acks(&hub, &wire);
    assert!(hub.unstored_acks(wire.id).is_empty());
    assert_eq!(hub.next_deadline(), None);
}

#[test]
fn what_one_acknowledged_is_not_lost_with_its_connection() {
    let hub = hub();
    let first = connect(&hub, identity(1, "s"));
    offer(&hub, 1, 1);
    hub.acknowledge(first.id, &ack(1));
    let second = connect(&hub, identity(1, "s"));
    assert_eq!(first.closed_with(), Some(1000), "replaced");
    assert_eq!(hub.unstored_acks(second.id), [1]);
    assert_eq!(hub.expel(1, (4001, "kicked")).acks, [1]);
}

#[test]
fn receipts_are_for_senders_that_keep_up() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    hub.set_wants_receipts(wire.id);
    let news = || vec![ReceiptNotice { sender: 1, receipt: Receipt::default() }];
    hub.notify_senders(news());
    assert_eq!(wire.pushed().len(), 1);
    for _ in 0..OUTGOING_MAX / 4 {
        hub.broadcast("m", &"news".into(), |_| true);
    }
    hub.notify_senders(news());
    assert_eq!(wire.outgoing.len(), OUTGOING_MAX / 4, "no receipt on top");
    wire.pushed();
    hub.notify_senders(news());
    assert_eq!(wire.pushed().len(), 1, "again, once it has read");
}

#[test]
fn a_member_cannot_take_all_places_of_its_mesh() {
    let hub = hub_for(1024);
    let session = |n: usize| Identity {
        is_session: true,
        routing_key: format!("k{n}"),
        ..identity(1, &format!("s{n}"))
    };
    let _wires: Vec<Wire> = (0..64).map(|n| connect(&hub, session(n))).collect();
    let more = try_admit(&hub, session(64), ConnectionPolicy::PreferNewest);
    assert!(matches!(more, Err(Admission::Full)));
    assert!(
        try_admit(&hub, session(7), ConnectionPolicy::PreferNewest).is_ok(),
        "it replaces itself"
    );
    assert!(try_admit(&hub, identity(2, "t"), ConnectionPolicy::PreferNewest).is_ok());
}

#[test]
fn a_peer_leaves_when_the_last_connection_of_its_key_does() {
    let hub = hub();
    let first = connect_under(&hub, identity(1, "a"), ConnectionPolicy::Allow);
    let second = connect_under(&hub, identity(1, "b"), ConnectionPolicy::Allow);
    hub.disconnect(first.id, START);
    assert!(hub.present("m").1.is_empty(), "it is connected");
    assert!(hub.expire_presences(START + Duration::from_secs(90)).is_empty());
    hub.disconnect(second.id, START + Duration::from_secs(90));
    assert_eq!(hub.expire_presences(START + Duration::from_secs(180)).len(), 1);
}

#[test]
fn one_who_goes_before_anybody_was_told_leaves_no_presence() {
    let hub = hub();
    let Ok(wire) = try_admit(&hub, identity(1, "s"), ConnectionPolicy::PreferNewest) else {
        panic!("is admitted")
    };
    assert!(hub.disconnect(wire.id, START).is_some());
    assert_eq!((hub.connections(), hub.present("m").1.len()), (0, 0));
    let known = connect(&hub, identity(1, "s"));
    hub.disconnect(known.id, START);
    let Ok(back) = try_admit(&hub, identity(1, "s"), ConnectionPolicy::PreferNewest) else {
        panic!("is admitted")
    };
    hub.disconnect(back.id, START);
    assert_eq!(hub.present("m").1.len(), 1, "it had been there before");
}

#[test]
fn two_installs_of_one_key_are_told_apart_by_policy() {
    let outcomes = [
        (ConnectionPolicy::PreferNewest, true, Some(4003)),
        (ConnectionPolicy::PreferOldest, false, None),
        (ConnectionPolicy::Allow, true, None),
    ];
    for (policy, admitted, closed) in outcomes {
        let hub = hub();
        let first = connect(&hub, identity(1, "install-1"));
        let second = try_admit(&hub, identity(1, "install-2"), policy);
        assert_eq!(second.is_ok(), admitted, "{policy:?}");
        assert_eq!(first.closed_with(), closed, "{policy:?}");
    }
}

#[test]
fn a_peer_that_comes_back_in_time_never_left() {
    let hub = hub();
    let wire = connect(&hub, identity(1, "s"));
    hub.disconnect(wire.id, START);
    assert_eq!(hub.present("m").1.len(), 1);
    let again = connect(&hub, identity(1, "s"));
    assert!(hub.expire_presences(START + Duration::from_secs(91)).is_empty());
    hub.disconnect(again.id, START);
    assert!(hub.expire_presences(START + Duration::from_secs(89)).is_empty());
    assert_eq!(hub.expire_presences(START + Duration::from_secs(90)).len(), 1);
}

#[test]
fn a_member_that_comes_and_goes_under_new_names_leaves_only_so_many_presences() {
    let hub = hub();
    let mut evicted = Vec::new();
    for n in 0..100 {
        let session = Identity {
            is_session: true,
            routing_key: format!("k{n}"),
            ..identity(1, &format!("s{n}"))
        };
        let wire = connect(&hub, session);
        let disconnected = hub.disconnect(wire.id, START).expect("was there");
        evicted.extend(disconnected.evicted.map(|identity| identity.session_id));
    }
    assert_eq!(evicted, (0..92).map(|n| format!("s{n}")).collect::<Vec<_>>(), "and are told");
    let left: Vec<_> = hub.present("m").1.into_iter().map(|presence| presence.session_id).collect();
    assert_eq!(left, (92..100).map(|n| format!("s{n}")).collect::<Vec<_>>(), "the latest ones");
    assert_eq!(hub.expire_presences(START + Duration::from_secs(90)).len(), 8);
}

#[test]
fn an_expelled_member_is_gone_at_once_with_all_its_presences() {
    let hub = hub();
    let (first, other) = (connect(&hub, identity(1, "a")), connect(&hub, identity(2, "b")));
    hub.disconnect(first.id, START);
    let session = Identity { is_session: true, routing_key: "k".into(), ..identity(1, "c") };
    let second = connect(&hub, session);
    let expelled = hub.expel(1, (4001, "kicked"));
    assert_eq!((expelled.closed, expelled.identities.len()), (1, 2));
    assert_eq!(second.closed_with(), Some(4001));
    assert_eq!((hub.present("m").0.len(), hub.present("m").1.len()), (1, 0));
    assert!(hub.disconnect(second.id, START).is_none() && other.closed_with().is_none());
}
