//! Two owners of one session id (§15.5, §15.6): the broker closes whoever was there for whoever
//! comes, and neither may come back at once, or they would flap for ever.

use claudemesh_fsm::link::{Closed, NextState, Offline, Open, Timers};
use claudemesh_fsm::negotiate::Negotiated;
use std::time::Duration;

/// One owner: open, or down until then.
enum Owner {
    Open(Open<()>),
    Down(Duration, claudemesh_fsm::link::Waiting),
    Fresh,
}

fn open(dialing: claudemesh_fsm::link::Dialing, now: Duration) -> Open<()> {
    dialing.connected((), now).greeted(now).agreed(Negotiated::legacy(), now)
}

/// Plays `length` and counts the hellos.
fn hellos(length: Duration, jitters: [u32; 2]) -> usize {
    let replaced = Closed { code: Some(1000), reason: "session_replaced".to_owned() };
    let mut owners = [Owner::Fresh, Owner::Fresh];
    let (mut now, mut hellos) = (Duration::ZERO, 0);
    while now < length {
        for newcomer in 0..2 {
            let dialing = match std::mem::replace(&mut owners[newcomer], Owner::Fresh) {
                Owner::Fresh => Offline::new(Timers::default()).dial(),
                Owner::Down(until, waiting) if until <= now => waiting.redial(),
                other => {
                    owners[newcomer] = other;
                    continue;
                }
            };
            owners[newcomer] = Owner::Open(open(dialing, now));
            hellos += 1;
            let other = 1 - newcomer;
            let older = std::mem::replace(&mut owners[other], Owner::Fresh);
            owners[other] = match older {
                Owner::Open(mut open) => {
                    // Even one that was of use does not hurry back.
                    open.note_delivery();
                    let NextState::Wait(waiting) = open.closed(&replaced, now, jitters[other])
                    else {
                        panic!("a replaced session is not refused")
                    };
                    let delay = Duration::from_millis(waiting.delay_ms());
                    Owner::Down(now + delay, waiting)
                }
                idle => idle,
            };
        }
        now += Duration::from_millis(100);
    }
    hellos
}

#[test]
fn two_owners_of_one_session_do_not_flap() {
    for jitters in [[0, 0], [0, u32::MAX], [u32::MAX, u32::MAX / 2]] {
        let minute = hellos(Duration::from_secs(60), jitters);
        assert!(minute <= 2, "{minute} hellos in a minute");
        let hour = hellos(Duration::from_secs(3600), jitters);
        assert!((3..=26).contains(&hour), "{hour} hellos in an hour: still trying, at leisure");
    }
}
