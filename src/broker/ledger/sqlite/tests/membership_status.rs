//! Bans, revocations, blocks, bounds and the audit of them.

use super::*;

fn deploys(broker: &Fixture, member: usize) -> TopicKey {
    let member = broker.members[member].seq;
    TopicKey { mesh_id: "m".into(), member, topic: "deploys".into() }
}

fn members_of_deploys(broker: &Fixture) -> Vec<String> {
    let members = block_on(broker.ledger.topic_members(deploys(broker, 0))).expect("reads");
    let listed = block_on(broker.ledger.topics("m", broker.members[0].seq)).expect("reads");
    let ids: Vec<_> = members.1.into_iter().map(|member| member.member_id).collect();
    let count = i64::try_from(ids.len()).expect("fits");
    assert_eq!((members.0.member_count, listed[0].member_count), (count, count));
    ids
}

#[test]
fn nobody_becomes_a_member_with_the_session_key_of_another() {
    let broker = fixture(2);
    let (ledger, session) = (&broker.ledger, key(55));
    let bind = || block_on(ledger.bind_session_key("m", &session, broker.members[1].seq, NOW));
    assert_eq!(bind(), Ok(true));
    invite(&broker);
    let joined = block_on(ledger.join("tok", "m", "x", &session, "x", NOW)).expect("answers");
    let added = block_on(ledger.add_member("m", "x", &session, "x", "member", NOW));
    for refused in [joined, added.expect("answers")] {
        let JoinOutcome::Refused(problem) = refused else { panic!("is in: {refused:?}") };
        assert!(problem.code().contains("session key"), "{problem:?}");
    }
    assert_eq!(bind(), Ok(true), "the session keeps its key");
    let other = block_on(ledger.join("tok", "m", "x", &key(56), "x", NOW)).expect("answers");
    assert_eq!(other, JoinOutcome::New("x".into()), "and the invite its use");
}

#[test]
fn a_banned_member_keeps_its_mail_and_gets_no_more_until_it_is_unbanned() {
    let broker = fixture(3);
    let (ledger, member) = (&broker.ledger, &broker.members[1]);
    create_topic(&broker);
    block_on(ledger.join_topic(deploys(&broker, 1), NOW)).expect("joins");
    recipients(broker.send(0, message("before", 1, Destination::Member(key(1)))));
    let ban = || block_on(ledger.ban_member(member, NOW));
    assert_eq!((ban(), ban()), (Ok(true), Ok(false)));
    let direct = broker.send(0, message("direct", 1, Destination::Member(key(1))));
    assert!(matches!(direct, Err(AcceptError::Refused(Refusal::BannedRecipient))));
    let from = broker.send(1, message("from", 1, Destination::Member(key(0))));
    assert!(matches!(from, Err(AcceptError::Refused(Refusal::NotAMember))));
    let everyone = recipients(broker.send(0, message("all", 1, Destination::Everyone)));
    assert_eq!(everyone, [broker.members[2].seq]);
    let topic = recipients(broker.send(0, message("topic", 1, Destination::Topic("t1".into()))));
    assert_eq!(topic, [0_i64; 0]);
    let join = block_on(ledger.join("tok", "m", "x", &key(1), "x", NOW)).expect("answers");
    assert!(matches!(join, JoinOutcome::Refused(problem) if problem.code() == "member_banned"));
    assert_eq!(broker.queued(1), 1, "what waited still waits");
    assert_eq!(members_of_deploys(&broker), ["id0"], "nor is it shown");
    let unban = || block_on(ledger.unban_member(member, NOW));
    assert_eq!((unban(), unban()), (Ok(true), Ok(false)));
    let again = recipients(broker.send(0, message("direct", 1, Destination::Member(key(1)))));
    assert_eq!((again, broker.queued(1)), (vec![member.seq], 2), "the id had stayed free");
    assert_eq!(members_of_deploys(&broker), ["id0", "id1"]);
    assert!(broker.is_whole());
    let acts = block_on(ledger.audit("m", 2)).expect("reads");
    let acts: Vec<_> = acts.iter().map(|row| (row.act.as_str(), row.subject.as_str())).collect();
    assert_eq!(acts, [("member_unbanned", "id1"), ("member_banned", "id1")]);
}

#[test]
fn a_revoked_key_is_out_for_good() {
    let broker = fixture(2);
    let ledger = &broker.ledger;
    assert_eq!(block_on(ledger.revoke_member(&broker.members[1], NOW)), Ok(true));
    assert_eq!(block_on(ledger.ban_member(&broker.members[1], NOW)), Ok(false));
    let refused = |joined: Result<JoinOutcome, LedgerError>| match joined.expect("answers") {
        JoinOutcome::Refused(problem) => problem.code(),
        other => panic!("is in again: {other:?}"),
    };
    assert_eq!(refused(block_on(ledger.join("t", "m", "x", &key(1), "x", NOW))), "member_revoked");
    let added = block_on(ledger.add_member("m", "x", &key(1), "x", "member", NOW));
    assert_eq!(refused(added), "member_revoked");
}

#[test]
fn what_a_revoked_members_last_frames_claim_reaches_nobody() {
    let broker = fixture(2);
    let (ledger, member) = (&broker.ledger, &broker.members[1]);
    create_topic(&broker);
    assert_eq!(block_on(ledger.revoke_member(member, NOW)), Ok(true));
    // Its connection may have sent these before it was closed.
    let session = key(55);
    let join = block_on(ledger.join_topic(deploys(&broker, 1), NOW));
    assert!(matches!(join, Err(TopicError::NotAMember)), "{join:?}");
    let group = claudemesh_base::wire::hello::Group { name: "eng".into(), role: None };
    let join = block_on(ledger.join_groups("m", member.seq, vec![group], false));
    assert_eq!(join, Err(GroupError::NotAMember));
    let new = topic("t2", "own");
    let created = block_on(ledger.create_topic("m", member.seq, new));
    assert!(matches!(created, Err(TopicError::NotAMember)), "{created:?}");
    block_on(ledger.bind_session_key("m", &session, member.seq, NOW)).expect("binds");
    let reached = recipients(broker.send(0, message("topic", 1, Destination::Topic("t1".into()))));
    assert_eq!(reached, [0_i64; 0]);
    for target in [key(1), session] {
        let direct = broker.send(0, message("direct", 1, Destination::Member(target)));
        assert!(matches!(direct, Err(AcceptError::Refused(Refusal::UnknownRecipient))));
    }
    assert!(broker.is_whole());
}

#[test]
fn a_blocked_sender_is_refused_and_its_id_stays_free() {
    let broker = fixture(3);
    let (ledger, members) = (&broker.ledger, &broker.members);
    let session = key(55);
    block_on(ledger.bind_session_key("m", &session, members[1].seq, NOW)).expect("binds");
    let set = |on| block_on(ledger.set_block(&members[1], &members[0], on, NOW));
    assert_eq!((set(true), set(true)), (Ok(true), Ok(false)));
    for target in [key(1), session] {
        let blocked = broker.send(0, message("id", 1, Destination::Member(target)));
        assert!(matches!(blocked, Err(AcceptError::Refused(Refusal::Blocked))));
    }
    recipients(broker.send(2, message("other", 1, Destination::Member(key(1)))));
    let everyone = recipients(broker.send(0, message("all", 1, Destination::Everyone)));
    assert_eq!(everyone.len(), 2, "a block is about direct messages");
    assert_eq!((set(false), set(false)), (Ok(true), Ok(false)));
    // Another request under the same id: nothing was claimed.
    recipients(broker.send(0, message("id", 2, Destination::Member(key(1)))));
    assert!(broker.is_whole());
}

#[test]
fn a_member_cannot_grow_beyond_so_many_groups_and_a_mesh_not_beyond_so_many_topics() {
    let broker = fixture(1);
    let (ledger, member) = (&broker.ledger, broker.members[0].seq);
    let groups = |from: usize, count: usize| -> Vec<_> {
        let group =
            |n: usize| claudemesh_base::wire::hello::Group { name: format!("g{n}"), role: None };
        (from..from + count).map(group).collect()
    };
    let join = |groups, replace| block_on(ledger.join_groups("m", member, groups, replace));
    assert_eq!(join(groups(0, GROUPS_MAX), false), Ok(()));
    assert_eq!(join(groups(5, 1), false), Ok(()), "it is in that one already");
    assert_eq!(join(groups(GROUPS_MAX, 1), false), Err(GroupError::TooMany));
    assert_eq!(join(groups(100, GROUPS_MAX + 1), true), Err(GroupError::TooMany));
    assert_eq!(block_on(ledger.groups(member)).expect("reads").len(), GROUPS_MAX);
    assert_eq!(join(groups(100, 1), true), Ok(()));
    let create = |n: i64| {
        block_on(ledger.create_topic("m", member, topic(&format!("t{n}"), &format!("n{n}"))))
    };
    let fill = |tx: &Tx<'_>| {
        for n in 1..TOPICS_MAX {
            let sql = "INSERT INTO topic (id, mesh_id, name, visibility, created_at) \
                       VALUES (?1, 'm', ?1, 'public', 0)";
            tx.execute(sql, &[(&format!("f{n}")).into()])?;
        }
        Ok::<_, Error>(())
    };
    block_on(ledger.synced(fill)).expect("fills");
    assert!(create(1).is_ok());
    assert!(matches!(create(2), Err(TopicError::TooMany)));
    assert!(create(1).is_ok_and(|(_, is_new)| !is_new), "one that is there is still found");
}

/// Which number of a check a damage shows in.
type Found = fn(&Check) -> i64;

#[test]
fn the_check_finds_every_kind_of_damage() {
    let damage: [(&'static str, Found); 5] = [
        ("DELETE FROM message", |check| check.delivery_without_message),
        ("DELETE FROM message", |check| check.dedupe_without_message),
        ("DELETE FROM client_message_dedupe", |check| check.message_without_dedupe),
        ("DELETE FROM member WHERE id = 'id1'", |check| check.delivery_without_recipient),
        ("UPDATE mailbox SET bytes = bytes + 1 WHERE queued = 1", |check| check.mailbox_miscounted),
    ];
    for (sql, found) in damage {
        let broker = fixture(2);
        recipients(broker.send(0, message("a", 1, Destination::Member(key(1)))));
        let before = block_on(broker.ledger.check()).expect("checks");
        assert!(before.is_whole());
        assert_eq!((before.messages, before.dedupe, before.deliveries), (1, 1, 1));
        block_on(broker.ledger.synced(move |tx| tx.execute(sql, &[]))).expect("damages");
        let check = block_on(broker.ledger.check()).expect("checks");
        assert_eq!((found(&check), check.is_whole()), (1, false), "{sql}: {check:?}");
    }
}

#[test]
fn what_a_member_can_make_the_audit_say_has_an_end_and_flushes_no_operator_out() {
    let broker = fixture(1);
    let entry = |n: i64| AuditEntry {
        at: Millis(n),
        mesh_id: "m".into(),
        actor: ACTOR_BROKER,
        act: "install_replaced",
        subject: "id0".into(),
        detail: None,
    };
    let fill = |tx: &Tx<'_>| {
        let sql = "INSERT INTO audit (at, mesh_id, actor, act, subject) \
                   WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10050) \
                   SELECT x, 'm', 'broker', 'install_replaced', 'id0' FROM n";
        tx.execute(sql, &[])
    };
    block_on(broker.ledger.synced(fill)).expect("fills");
    block_on(broker.ledger.record(entry(0))).expect("records");
    let acts = block_on(broker.ledger.audit("m", 20_000)).expect("reads");
    assert_eq!(acts.iter().filter(|row| row.actor == ACTOR_BROKER).count(), 10_000);
    assert!(acts.iter().any(|row| row.act == "mesh_created"));
    assert!(acts.iter().any(|row| row.act == "member_added"));
}
