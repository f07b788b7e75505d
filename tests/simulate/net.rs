//! The network between the daemons and the broker: frames that are lost, late, doubled, overtaken
//! by those of a newer connection, or cut off. Stands where the real links stand: hands out a
//! `LinkTransport`, feeds `InboundPush`, reports late acks.

use super::disk::{Disk, Point};
use super::transport::SimCourier;
use super::world::{Rng, Sched};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire;
use claudemesh_daemon::mesh::Mesh;
use claudemesh_daemon::port::{InboundPush, LateAck, LinkObserver, SendOutcome};
use claudemesh_fsm::id::BrokerMessageId;
use claudemesh_fsm::outbox::Ack;
use futures_channel::oneshot;
use smol::channel::{self, Sender};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What travels.
#[derive(Clone)]
pub enum Frame {
    Hello,
    Send(Box<wire::SendFrame>),
    Ack(Box<wire::AckFrame>),
    Push(Box<wire::PushFrame>),
    ClientAck(wire::ClientAck),
    ReceiptsRequest(wire::ReceiptsRequest),
    Receipts(wire::ReceiptsFrame),
}

impl Frame {
    fn describe(&self) -> String {
        match self {
            Self::Hello => "hello".into(),
            Self::Send(send) => format!("send {}", send.id.as_deref().unwrap_or("?")),
            Self::Ack(ack) => format!("ack {} {:?}", ack.id, ack.code),
            Self::Push(push) => format!("push {}", push.message_id),
            Self::ClientAck(ack) => {
                format!("client_ack {}", ack.broker_message_id.as_deref().unwrap_or("?"))
            }
            Self::ReceiptsRequest(request) => format!("receipts? {}", request.ids.len()),
            Self::Receipts(told) => format!("receipts {}", told.receipts.len()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToBroker,
    ToDaemon,
}

/// How bad the network is, in thousandths of all frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub lost: u64,
    pub doubled: u64,
    pub slow: u64,
    pub cut: u64,
    /// A frame in flight survives the cut of its connection.
    pub survives: u64,
}

/// A frame that arrives.
pub struct Arrival {
    pub conn: u64,
    pub way: Way,
    pub frame: Frame,
}

struct Conn {
    daemon: usize,
    open: bool,
    gone: Sender<()>,
    waiting: BTreeMap<String, oneshot::Sender<SendOutcome>>,
    /// A question under way, and who asked.
    asked: Option<(String, oneshot::Sender<Vec<wire::Receipt>>)>,
    end: DaemonEnd,
    last_arrival: [Duration; 2],
}

/// What the daemon's end of a connection needs.
pub struct DaemonEnd {
    pub mesh: Mesh,
    pub runtime: Runtime,
    pub disk: Arc<Disk>,
    pub secret: SecretKey,
    pub inbound: Sender<InboundPush>,
    pub acks: Sender<wire::ClientAck>,
}

struct State {
    rng: Rng,
    weather: Weather,
    in_flight: BTreeMap<(Duration, u64), (u64, Way, Frame)>,
    next_frame: u64,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    /// Where the broker listens, while it is up.
    broker: Option<Sender<(u64, Frame)>>,
}

/// The network.
pub struct Net {
    sched: Arc<Sched>,
    /// A mutant: the network acknowledges pushes when it hands them over.
    ack_early: bool,
    state: Mutex<State>,
}

impl Net {
    pub fn new(sched: Arc<Sched>, rng: Rng, ack_early: bool) -> Arc<Self> {
        let state = State {
            rng,
            weather: Weather::default(),
            in_flight: BTreeMap::new(),
            next_frame: 0,
            conns: BTreeMap::new(),
            next_conn: 0,
            broker: None,
        };
        Arc::new(Self { sched, ack_early, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// The broker listens, or is gone and every connection with it.
    pub fn set_broker(&self, broker: Option<Sender<(u64, Frame)>>) {
        let all: Vec<u64> = self.lock().conns.keys().copied().collect();
        all.into_iter().for_each(|conn| self.cut(conn));
        self.lock().broker = broker;
    }

    /// A connection, unless the broker is down or the dial fails.
    pub fn dial(self: &Arc<Self>, daemon: usize, end: DaemonEnd) -> Option<(u64, SimCourier)> {
        let (gone, closed) = channel::bounded(1);
        let (runtime, secret) = (end.runtime.clone(), end.secret.clone());
        let mut state = self.lock();
        state.broker.as_ref()?;
        let (cut, conn) = (state.weather.cut, state.next_conn);
        if state.rng.permille(cut * 4) {
            return None;
        }
        state.next_conn += 1;
        let (waiting, asked) = (BTreeMap::new(), None);
        let last_arrival = [self.sched.now(); 2];
        let new = Conn { daemon, open: true, gone, waiting, asked, end, last_arrival };
        state.conns.insert(conn, new);
        drop(state);
        self.sched.log(|| format!("daemon {daemon} opens connection {conn}"));
        self.send(conn, Way::ToBroker, Frame::Hello);
        Some((conn, SimCourier { net: self.clone(), conn, closed, runtime, secret }))
    }

    /// The end of the world: connections hold meshes, which hold couriers, which hold this.
    pub fn end(&self) {
        let conns = std::mem::take(&mut self.lock().conns);
        drop(conns);
    }

    pub fn daemon_of(&self, conn: u64) -> Option<usize> {
        self.lock().conns.get(&conn).map(|conn| conn.daemon)
    }

    pub fn is_open(&self, conn: u64) -> bool {
        self.lock().conns.get(&conn).is_some_and(|conn| conn.open)
    }

    /// Ends a connection: what waits for an answer is lost, what is in flight mostly too.
    pub fn cut(&self, id: u64) {
        let mut state = self.lock();
        let Some(conn) = state.conns.get_mut(&id).filter(|conn| conn.open) else { return };
        conn.open = false;
        let waiting = std::mem::take(&mut conn.waiting);
        conn.asked = None;
        conn.gone.close();
        let survives = state.weather.survives;
        let mut rng = state.rng.clone();
        // What the broker sent over it has nowhere to go; what was sent to it may still be read.
        state.in_flight.retain(|_, (of, way, _)| {
            *of != id || (*way == Way::ToBroker && rng.permille(survives))
        });
        state.rng = rng;
        drop(state);
        self.sched.log(|| format!("connection {id} is cut"));
        for (_, reply) in waiting {
            let _ = reply.send(SendOutcome::Lost { reason: "the connection went away".into() });
        }
    }

    /// Ends every connection of a daemon.
    pub fn cut_daemon(&self, daemon: usize) {
        let of: Vec<u64> = {
            let state = self.lock();
            state.conns.iter().filter(|(_, c)| c.daemon == daemon).map(|(id, _)| *id).collect()
        };
        of.into_iter().for_each(|conn| self.cut(conn));
    }

    /// Puts a frame on the wire.
    pub fn send(&self, id: u64, way: Way, frame: Frame) {
        let mut state = self.lock();
        if !state.conns.get(&id).is_some_and(|conn| conn.open) {
            return;
        }
        let (weather, now) = (state.weather, self.sched.now());
        if state.rng.permille(weather.lost) && !matches!(frame, Frame::Hello) {
            drop(state);
            return self.sched.log(|| format!("lost on {id}: {}", frame.describe()));
        }
        let copies = 1 + usize::from(state.rng.permille(weather.doubled));
        for _ in 0..copies {
            let delay = if state.rng.permille(weather.slow) {
                state.rng.ms(1000, 9000)
            } else {
                state.rng.ms(1, 80)
            };
            let number = state.next_frame;
            state.next_frame += 1;
            let Some(conn) = state.conns.get_mut(&id) else { return };
            // One connection keeps its order; two do not keep each other's.
            let at = (now + delay).max(conn.last_arrival[way as usize]);
            conn.last_arrival[way as usize] = at;
            state.in_flight.insert((at, number), (id, way, frame.clone()));
        }
        let is_cut = state.rng.permille(weather.cut);
        drop(state);
        if is_cut {
            self.cut(id);
        }
    }

    /// Writes a send, and remembers who waits for its answer.
    pub(super) fn put(&self, id: u64, name: String, message: wire::SendFrame) -> Put {
        let (reply, answer) = oneshot::channel();
        let disk = {
            let mut state = self.lock();
            let Some(conn) = state.conns.get_mut(&id).filter(|conn| conn.open) else {
                return Put::Closed;
            };
            if !conn.end.disk.passes(Point::BeforeSend) {
                return Put::Died;
            }
            conn.waiting.insert(name, reply);
            conn.end.disk.clone()
        };
        self.send(id, Way::ToBroker, Frame::Send(Box::new(message)));
        if disk.passes(Point::AfterSend) { Put::Written(answer) } else { Put::Died }
    }

    /// Nobody waits for the answer to a send any more.
    pub(super) fn give_up(&self, id: u64, name: &str) {
        if let Some(conn) = self.lock().conns.get_mut(&id) {
            conn.waiting.remove(name);
        }
    }

    /// Writes a question, and remembers who asked. `None` when the connection is gone.
    pub(super) fn ask(
        &self,
        id: u64,
        request: wire::ReceiptsRequest,
    ) -> Option<oneshot::Receiver<Vec<wire::Receipt>>> {
        let (reply, answer) = oneshot::channel();
        let asked = (request.request_id.clone()?, reply);
        self.lock().conns.get_mut(&id).filter(|conn| conn.open)?.asked = Some(asked);
        self.send(id, Way::ToBroker, Frame::ReceiptsRequest(request));
        Some(answer)
    }

    /// When the next frame arrives.
    pub fn next_at(&self) -> Option<Duration> {
        self.lock().in_flight.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next frame that has arrived by now.
    pub fn pop(&self) -> Option<Arrival> {
        let now = self.sched.now();
        let mut state = self.lock();
        let entry = state.in_flight.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (_, (conn, way, frame)) = entry.remove_entry();
        Some(Arrival { conn, way, frame })
    }

    /// Hands an arrived frame to its end. Gives back a late ack, for mutants to misuse.
    pub fn arrive(&self, arrival: Arrival) -> Option<(usize, LateAck)> {
        let Arrival { conn: id, way, frame, .. } = arrival;
        self.sched.log(|| format!("{way:?} on {id}: {}", frame.describe()));
        let mut state = self.lock();
        if way == Way::ToBroker {
            if let Some(broker) = &state.broker {
                let _ = broker.try_send((id, frame));
            }
            return None;
        }
        let conn = state.conns.get_mut(&id).filter(|conn| conn.open)?;
        if !conn.end.disk.is_alive() {
            return None;
        }
        match frame {
            Frame::Ack(ack) => {
                let reply = conn.waiting.remove(&ack.id);
                let (mesh, daemon) = (conn.end.mesh.clone(), conn.daemon);
                let name = ack.id.clone();
                let delivery = read(*ack, &conn.end.runtime);
                drop(state);
                let unheard = match reply {
                    Some(reply) => reply.send(delivery).err(),
                    None => Some(delivery),
                };
                let Some(SendOutcome::Acked(ack)) = unheard else { return None };
                let late = LateAck { client_message_id: name, ack };
                mesh.late_ack(late.clone());
                Some((daemon, late))
            }
            Frame::Receipts(told) => {
                let is_answer =
                    |(asked, _): &mut (String, _)| told.request_id.as_ref() == Some(asked);
                let asked = conn.asked.take_if(is_answer);
                let mesh = conn.end.mesh.clone();
                drop(state);
                let news = match asked {
                    Some((_, reply)) => reply.send(told.receipts).err(),
                    None => Some(told.receipts),
                };
                news.into_iter().for_each(|receipts| mesh.receipts(receipts));
                None
            }
            Frame::Push(push) => {
                let early = wire::ClientAck {
                    client_message_id: push.client_message_id.clone(),
                    broker_message_id: Some(push.message_id.clone()),
                };
                let inbound = InboundPush {
                    acks: conn.end.acks.clone(),
                    secrets: Arc::from([conn.end.secret.clone()]),
                    connection_key: conn.end.secret.public(),
                    push: *push,
                };
                let sender = conn.end.inbound.clone();
                drop(state);
                let _ = sender.try_send(inbound);
                if self.ack_early {
                    self.send(id, Way::ToBroker, Frame::ClientAck(early));
                }
                None
            }
            _ => None,
        }
    }
}

fn read(ack: wire::AckFrame, runtime: &Runtime) -> SendOutcome {
    match ack.error {
        Some(reason) => SendOutcome::Refused { code: ack.code, permanent: ack.permanent, reason },
        None => SendOutcome::Acked(Ack {
            broker_message_id: BrokerMessageId::trusted(ack.message_id),
            history_id: ack.history_id,
            delivered_at: runtime.now(),
            recipients: ack.recipients,
        }),
    }
}

/// What became of writing a send.
pub enum Put {
    Written(oneshot::Receiver<SendOutcome>),
    Closed,
    Died,
}
