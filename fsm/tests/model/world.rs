//! Which actions a state allows, and what each leads to.

use crate::broker::{self, Mood};
use crate::explore::{Broken, Model};
use crate::promises::{self, Asked};
use crate::receiver;
use crate::rules::Rules;
use crate::sender;
use crate::state::{At, Broker, Left, Past, Receiver, Sender, World};
use claudemesh_fsm::outbox::Status;

/// How far the exploration goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// How many `client_message_id`s callers use, each with two bodies.
    pub(crate) ids: u8,
    /// How many requests, requeues and aborts, and faults there are.
    pub(crate) left: Left,
}

/// The modelled system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mesh {
    pub(crate) bound: Bound,
    pub(crate) rules: Rules,
    pub(crate) asked: Asked,
}

/// One step of somebody. Rows, hands, messages and strays go by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    // Wishes.
    Ask { id: u8, body: u8 },
    Requeue { row: u8, force: bool },
    Abort { row: u8 },
    // Progress.
    StoreUnstored,
    Claim { row: u8 },
    Write { hand: u8 },
    Settle { hand: u8 },
    Hear,
    StoreLate,
    StoreExpired,
    Sync,
    Reopen,
    BrokerTakes,
    BrokerTakesStray { stray: u8 },
    Push { message: u8 },
    TakePush,
    ReceiverStores,
    BrokerTakesAck,
    ReceiverReopens,
    // Faults.
    BrokerRefuses { mood: Mood },
    SiblingSends { id: u8, body: u8 },
    TimeOut { hand: u8 },
    Expire { row: u8 },
    Cut { frames_linger: bool },
    Restart { frames_linger: bool },
    PowerCut { frames_linger: bool },
    BrokerRestarts { loses_power: bool },
    LeaseEnds { message: u8 },
    ReceiverCut,
    ReceiverRestarts,
}

impl Model for Mesh {
    type State = World;
    type Action = Action;

    fn initial(&self) -> World {
        World {
            sender: Sender {
                table: Vec::new(),
                synced: Vec::new(),
                unstored: Vec::new(),
                hands: Vec::new(),
                expired: Vec::new(),
                late: Vec::new(),
                is_linked: true,
                given_up: Vec::new(),
                frames: Vec::new(),
                answers: Vec::new(),
            },
            broker: Broker { messages: Vec::new(), strays: Vec::new() },
            receiver: Receiver {
                seen: Vec::new(),
                announced: Vec::new(),
                arrivals: Vec::new(),
                is_linked: true,
                pushes: Vec::new(),
                acks: Vec::new(),
            },
            told: Vec::new(),
            left: self.bound.left,
            past: Past { sibling_sent: false },
        }
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.wishes(world, actions);
        sender_progress(world, actions);
        delivery_progress(world, actions);
        if world.left.faults > 0 {
            faults(world, actions);
        }
    }

    fn step(&self, world: &World, action: Action) -> World {
        let mut after = world.clone();
        self.act(&mut after, action);
        if after.left.faults == 0 {
            // No power cut can come any more, so what is synced no longer matters.
            sender::sync(&mut after.sender);
        }
        after
    }

    fn is_progress(&self, action: Action) -> bool {
        use Action::*;
        match action {
            Ask { .. } | Requeue { .. } | Abort { .. } => false,
            StoreUnstored
            | Claim { .. }
            | Write { .. }
            | Settle { .. }
            | Hear
            | StoreLate
            | StoreExpired
            | Sync
            | Reopen
            | BrokerTakes
            | BrokerTakesStray { .. }
            | Push { .. }
            | TakePush
            | ReceiverStores
            | BrokerTakesAck
            | ReceiverReopens => true,
            BrokerRefuses { .. }
            | SiblingSends { .. }
            | TimeOut { .. }
            | Expire { .. }
            | Cut { .. }
            | Restart { .. }
            | PowerCut { .. }
            | BrokerRestarts { .. }
            | LeaseEnds { .. }
            | ReceiverCut
            | ReceiverRestarts => false,
        }
    }

    fn check(&self, world: &World) -> Result<(), Broken> {
        promises::of_state(world, self.asked)
    }

    fn check_move(&self, before: &World, action: Action, after: &World) -> Result<(), Broken> {
        let lost_power = matches!(action, Action::PowerCut { .. });
        promises::of_move(before, after, self.asked, lost_power)?;
        if action == Action::Hear { promises::of_answer(before, after, self.asked) } else { Ok(()) }
    }

    fn check_rest(&self, world: &World) -> Result<(), Broken> {
        promises::of_rest(world, self.asked)
    }
}

impl Mesh {
    fn wishes(&self, world: &World, actions: &mut Vec<Action>) {
        let table = &world.sender.table;
        if world.left.requests > 0 {
            for id in 0..self.bound.ids {
                actions.push(Action::Ask { id, body: 0 });
                // Bodies and ids differ in name only: the first of each is enough to begin with.
                if !table.iter().any(|row| row.id == id) {
                    break;
                }
                actions.push(Action::Ask { id, body: 1 });
            }
        }
        if world.left.wishes > 0 {
            for (row, columns) in table.iter().enumerate() {
                let row = place(row);
                match columns.status {
                    Status::Pending if columns.may_have_been_sent => {
                        actions
                            .extend([Action::Requeue { row, force: true }, Action::Abort { row }]);
                    }
                    Status::Pending | Status::Dead => {
                        actions
                            .extend([Action::Requeue { row, force: false }, Action::Abort { row }]);
                    }
                    // Refused by the types: nothing would change.
                    Status::Inflight | Status::Done | Status::Aborted => {}
                }
            }
        }
    }

    fn act(&self, world: &mut World, action: Action) {
        let rules = &self.rules;
        match action {
            Action::Ask { id, body } => sender::ask(world, rules, id, body),
            Action::Requeue { row, force } => {
                world.left.wishes -= 1;
                let minted = world.sender.table.iter().filter(|row| row.id >= self.bound.ids);
                let new_id = self.bound.ids + place(minted.count());
                sender::retire(&mut world.sender, row, force, Some(new_id));
            }
            Action::Abort { row } => {
                world.left.wishes -= 1;
                sender::retire(&mut world.sender, row, true, None);
            }
            Action::StoreUnstored => sender::store_unstored(&mut world.sender),
            Action::Claim { row } => sender::claim(&mut world.sender, row),
            Action::Write { hand } => sender::write(&mut world.sender, hand),
            Action::Settle { hand } => sender::settle(&mut world.sender, hand),
            Action::Hear => sender::hear(&mut world.sender, rules),
            Action::StoreLate => sender::store_late(&mut world.sender, rules),
            Action::StoreExpired => sender::store_expired(&mut world.sender, rules),
            Action::Sync => sender::sync(&mut world.sender),
            Action::Reopen => world.sender.is_linked = true,
            Action::BrokerTakes => broker::take_frame(world, rules, Mood::Willing),
            Action::BrokerTakesStray { stray } => broker::take_stray(world, rules, stray),
            Action::Push { message } => broker::push(world, message),
            Action::TakePush => receiver::take_push(world, rules),
            Action::ReceiverStores => receiver::store(world, rules),
            Action::BrokerTakesAck => broker::take_ack(world),
            Action::ReceiverReopens => world.receiver.is_linked = true,
            fault => self.fail(world, fault),
        }
    }

    fn fail(&self, world: &mut World, fault: Action) {
        let rules = &self.rules;
        match fault {
            // These three count themselves.
            Action::BrokerRefuses { mood } => return broker::take_frame(world, rules, mood),
            Action::SiblingSends { id, body } => {
                return broker::take_from_sibling(world, rules, (id, body));
            }
            Action::TimeOut { hand } => return sender::time_out(world, hand),
            Action::Expire { row } => return sender::find_expired(world, row),
            Action::LeaseEnds { message } => return broker::end_lease(world, message),
            Action::Cut { frames_linger } => sender::cut(world, frames_linger),
            Action::Restart { frames_linger } => sender::restart(world, rules, frames_linger),
            Action::PowerCut { frames_linger } => sender::power_cut(world, rules, frames_linger),
            Action::BrokerRestarts { loses_power } => {
                sender::cut(world, false);
                receiver::cut(world);
                world.broker.strays.clear();
                if loses_power {
                    broker::forget_acks(&mut world.broker);
                }
            }
            Action::ReceiverCut => receiver::cut(world),
            Action::ReceiverRestarts => receiver::restart(world),
            _ => return,
        }
        world.left.faults -= 1;
    }
}

/// An action names things by their place, in one byte: millions of actions are kept.
fn place(at: usize) -> u8 {
    u8::try_from(at).expect("few of a kind")
}

fn sender_progress(world: &World, actions: &mut Vec<Action>) {
    let sender = &world.sender;
    if !sender.unstored.is_empty() {
        actions.push(Action::StoreUnstored);
    }
    for (hand, held) in sender.hands.iter().enumerate() {
        match held.at {
            At::Queued => actions.push(Action::Write { hand: place(hand) }),
            At::Written => {}
            At::Ended(_) => actions.push(Action::Settle { hand: place(hand) }),
        }
    }
    if !sender.answers.is_empty() {
        actions.push(Action::Hear);
    }
    if !sender.late.is_empty() {
        actions.push(Action::StoreLate);
    }
    if !sender.expired.is_empty() {
        // The flow that claims waits for it.
        actions.push(Action::StoreExpired);
    } else if sender.is_linked {
        for (row, columns) in sender.table.iter().enumerate() {
            if columns.status == Status::Pending {
                actions.push(Action::Claim { row: place(row) });
            }
        }
    } else if sender.hands.is_empty() {
        // The drain settles everything of one connection before it serves the next.
        actions.push(Action::Reopen);
    }
    if sender.synced != sender.table {
        actions.push(Action::Sync);
    }
}

fn delivery_progress(world: &World, actions: &mut Vec<Action>) {
    if !world.sender.frames.is_empty() {
        actions.push(Action::BrokerTakes);
    }
    for stray in 0..world.broker.strays.len() {
        actions.push(Action::BrokerTakesStray { stray: place(stray) });
    }
    let receiver = &world.receiver;
    if receiver.is_linked {
        for (message, stored) in world.broker.messages.iter().enumerate() {
            if stored.waits && !stored.is_leased {
                actions.push(Action::Push { message: place(message) });
            }
        }
    } else {
        actions.push(Action::ReceiverReopens);
    }
    if !receiver.pushes.is_empty() {
        actions.push(Action::TakePush);
    }
    if !receiver.arrivals.is_empty() {
        actions.push(Action::ReceiverStores);
    }
    if !receiver.acks.is_empty() {
        actions.push(Action::BrokerTakesAck);
    }
}

fn faults(world: &World, actions: &mut Vec<Action>) {
    let sender = &world.sender;
    if let Some((id, _)) = sender.frames.first()
        && !world.broker.knows(*id)
    {
        actions.extend(Mood::REFUSING.map(|mood| Action::BrokerRefuses { mood }));
    }
    for row in &sender.table {
        if !world.broker.knows(row.id) {
            actions.push(Action::SiblingSends { id: row.id, body: 1 - row.body });
        }
    }
    for (hand, held) in sender.hands.iter().enumerate() {
        if held.at == At::Written {
            actions.push(Action::TimeOut { hand: place(hand) });
        }
    }
    if sender.is_linked && sender.expired.is_empty() {
        for (row, columns) in sender.table.iter().enumerate() {
            if columns.status == Status::Pending {
                actions.push(Action::Expire { row: place(row) });
            }
        }
    }
    let fates: &[bool] = if sender.frames.is_empty() { &[false] } else { &[false, true] };
    for frames_linger in fates.iter().copied() {
        if sender.is_linked {
            actions.push(Action::Cut { frames_linger });
        }
        actions.push(Action::Restart { frames_linger });
        // With everything synced it is a restart.
        if sender.synced != sender.table {
            actions.push(Action::PowerCut { frames_linger });
        }
    }
    actions.push(Action::BrokerRestarts { loses_power: false });
    if world.broker.messages.iter().any(|message| !message.waits) {
        actions.push(Action::BrokerRestarts { loses_power: true });
    }
    for (message, stored) in world.broker.messages.iter().enumerate() {
        if stored.is_leased {
            actions.push(Action::LeaseEnds { message: place(message) });
        }
    }
    if world.receiver.is_linked {
        actions.push(Action::ReceiverCut);
    }
    actions.push(Action::ReceiverRestarts);
}
