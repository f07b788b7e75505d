//! From the first packet to an open link: dial, hello, negotiation (§15, §15.5).

use super::{ConnectionEnd, LinkDriver, NORMAL, asked};
use crate::link::commands::LinkCommand;
use crate::link::connection::{Connection, ConnectionEvent};
use crate::link::socket::WebSocket;
use crate::link::{LinkConfig, OFFLINE_ROSTER, WORDS_CHARS_MAX, view};
use crate::port::LinkView;
use claudemesh_base::message::signed;
use claudemesh_base::wire::{BrokerFrame, ClientFrame, ErrorFrame, Hello, features, to_text};
use claudemesh_fsm::link::{Dialing, Greeting, HelloError, LinkState, Negotiating, Open};
use claudemesh_fsm::negotiate::{self, Negotiated, NegotiationError, Silence};

const PROTOCOL_VERSION: u32 = 1;
const CHANNEL: &str = "claudemesh-daemon";
const PEER_TYPE: &str = "ai";
/// How much of an offer goes to the log.
const OFFER_CHARS_MAX: usize = 4096;
const MS_PER_HOUR: u64 = 60 * 60 * 1000;

impl LinkDriver {
    /// To an open link, or to why there is none.
    pub(super) async fn establish(
        &mut self,
        dialing: Dialing,
    ) -> Result<Open<Connection>, ConnectionEnd> {
        let greeting = self.dial(dialing).await?;
        let (negotiating, negotiates) = self.greet(greeting).await?;
        self.negotiate(negotiating, negotiates).await
    }

    async fn dial(&mut self, dialing: Dialing) -> Result<Greeting<Connection>, ConnectionEnd> {
        (self.close_code, self.feature) = (None, None);
        (self.offer, self.revoked_via) = (None, None);
        self.commands.forget_redials();
        self.down(LinkView::plain(LinkState::Dialing));
        let (url, limit) = (&self.config.broker_url, self.config.connect_max);
        let dial = WebSocket::dial(url, &mut self.tls, &self.runtime, limit);
        let socket = match self.commands.unless_stopped(dial).await {
            None => return Err(ConnectionEnd::Asked(LinkCommand::Stop)),
            Some(Err(why)) => {
                return Err(dialing.failed(&why.to_string(), self.runtime.jitter()).into());
            }
            Some(Ok(socket)) => socket,
        };
        self.commands.forget_redials();
        let (runtime, observer) = (self.runtime.clone(), self.observer.clone());
        let (secrets, inbound) = (self.secrets.clone(), self.inbound.clone());
        let dropped = self.dropped.clone();
        let mut connection =
            Connection::new(socket, &self.config, secrets, runtime, observer, inbound, dropped);
        connection.enqueue(&ClientFrame::Hello(Box::new(self.hello())));
        self.down(LinkView::plain(LinkState::Greeting));
        Ok(dialing.connected(connection, self.runtime.monotonic()))
    }

    fn hello(&self) -> Hello {
        let LinkConfig { mesh_id, member_id, secret, .. } = &self.config;
        let (key, at) = (secret.public(), self.runtime.now());
        Hello {
            protocol_version: Some(PROTOCOL_VERSION),
            mesh_id: mesh_id.clone(),
            member_id: member_id.clone(),
            pubkey: key.to_hex(),
            session_pubkey: None,
            display_name: self.config.display_name.clone(),
            session_id: self.config.session_id.clone(),
            pid: self.config.pid,
            cwd: self.config.cwd.clone(),
            hostname: self.config.hostname.clone(),
            channel: Some(CHANNEL.to_owned()),
            peer_type: Some(PEER_TYPE.to_owned()),
            groups: Vec::new(),
            timestamp: at.0,
            signature: secret.sign(&signed::hello(mesh_id, member_id, &key, at)),
        }
    }

    /// To a greeted connection, and whether its broker says that it negotiates.
    async fn greet(
        &mut self,
        mut greeting: Greeting<Connection>,
    ) -> Result<(Negotiating<Connection>, bool), ConnectionEnd> {
        let negotiates = loop {
            let deadline = greeting.deadline();
            let event = greeting.socket_mut().next(&mut self.commands, deadline).await;
            match event {
                ConnectionEvent::Frame(BrokerFrame::HelloAck(ack)) => break ack.negotiates,
                ConnectionEvent::Frame(BrokerFrame::Error(error)) => {
                    greeting.socket_mut().send_close(NORMAL, "hello rejected").await;
                    let error = self.hello_error(&error);
                    self.revoked_via = Some(format!("error {}", error.code));
                    return Err(greeting.rejected(&error, self.runtime.jitter()).into());
                }
                ConnectionEvent::Closed(closed) => {
                    self.finish_close(greeting.socket_mut(), &closed).await;
                    return Err(greeting.closed(&closed, self.runtime.jitter()).into());
                }
                ConnectionEvent::Due | ConnectionEvent::Stalled => {
                    greeting.socket_mut().send_close(NORMAL, "hello not answered").await;
                    return Err(greeting.timed_out(self.runtime.jitter()).into());
                }
                ConnectionEvent::Command(command) => {
                    return Err(asked(greeting.socket_mut(), command).await);
                }
                ConnectionEvent::Revoked(_) | ConnectionEvent::RosterChanged => {}
                ConnectionEvent::Frame(_) => {
                    greeting.socket_mut().drop_frame("a frame before hello_ack")
                }
            }
        };
        let optional = self.config.policy.optional.iter().cloned();
        let request = features::FeatureRequest {
            require: self.config.policy.require.clone(),
            optional: optional.chain([OFFLINE_ROSTER.to_owned()]).collect(),
        };
        let connection = greeting.socket_mut();
        connection.allow_acks();
        connection.enqueue(&ClientFrame::FeatureNegotiationRequest(request));
        self.down(LinkView::plain(LinkState::Negotiating));
        Ok((greeting.greeted(self.runtime.monotonic()), negotiates))
    }

    fn hello_error(&self, error: &ErrorFrame) -> HelloError {
        let code = error.code.chars().take(WORDS_CHARS_MAX).collect();
        let ahead_ms = error.broker_time.map(|theirs| self.runtime.now().0.saturating_sub(theirs));
        HelloError { code, ahead_ms }
    }

    async fn negotiate(
        &mut self,
        mut negotiating: Negotiating<Connection>,
        negotiates: bool,
    ) -> Result<Open<Connection>, ConnectionEnd> {
        let silence = loop {
            let deadline = negotiating.deadline();
            let event = negotiating.socket_mut().next(&mut self.commands, deadline).await;
            match event {
                ConnectionEvent::Frame(BrokerFrame::FeatureNegotiationResponse(response)) => {
                    self.offer = Some(to_text(&response).chars().take(OFFER_CHARS_MAX).collect());
                    let policy = &self.config.policy;
                    return match negotiate::evaluate(policy, &view::offer(response)) {
                        Ok(negotiated) => self.agree(negotiating, negotiated).await,
                        Err(refusal) => Err(self.refuse(negotiating, &refusal).await),
                    };
                }
                ConnectionEvent::Due => {
                    break negotiate::on_no_answer(&self.config.policy, negotiates);
                }
                // It reads nothing, so it never saw the question.
                ConnectionEvent::Stalled => break Silence::Slow,
                ConnectionEvent::Closed(closed) => {
                    self.finish_close(negotiating.socket_mut(), &closed).await;
                    return Err(negotiating.closed(&closed, self.runtime.jitter()).into());
                }
                ConnectionEvent::Command(command) => {
                    return Err(asked(negotiating.socket_mut(), command).await);
                }
                ConnectionEvent::Revoked(_) | ConnectionEvent::RosterChanged => {}
                ConnectionEvent::Frame(_) => {
                    negotiating.socket_mut().drop_frame("a frame before the negotiation's answer");
                }
            }
        };
        match silence {
            Silence::Legacy(negotiated) => self.agree(negotiating, negotiated).await,
            Silence::Missing(refusal) => Err(self.refuse(negotiating, &refusal).await),
            Silence::Slow => {
                negotiating.socket_mut().send_close(NORMAL, "negotiation not answered").await;
                Err(negotiating.timed_out(self.runtime.jitter()).into())
            }
        }
    }

    async fn refuse(
        &mut self,
        mut negotiating: Negotiating<Connection>,
        refusal: &NegotiationError,
    ) -> ConnectionEnd {
        let reason = refusal.close_reason_json();
        negotiating.socket_mut().send_close(negotiate::CLOSE_CODE, &reason).await;
        self.feature = Some(refusal.feature.clone());
        negotiating.refused(refusal).into()
    }

    async fn agree(
        &mut self,
        mut negotiating: Negotiating<Connection>,
        negotiated: Negotiated,
    ) -> Result<Open<Connection>, ConnectionEnd> {
        match negotiated.max_age_hours(self.config.max_age_override_hours) {
            Ok(hours) => {
                self.offer = None;
                self.max_age_ms = hours.saturating_mul(MS_PER_HOUR);
                Ok(negotiating.agreed(negotiated, self.runtime.monotonic()))
            }
            Err(refused) => {
                let reason = negotiate::MAX_AGE_REASON;
                negotiating.socket_mut().send_close(NORMAL, reason).await;
                Err(negotiating.max_age_refused(refused).into())
            }
        }
    }
}
