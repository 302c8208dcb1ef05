//! The Responses API over a WebSocket: every text message `response.create` is a request, every
//! event of the response a text message. Responses with `store: false` are known on their socket
//! only.
//!
//! Faults apply to the handshake as to any request, and then to each message: a status becomes an
//! `error` event, a response of the catalog one or more events; a drop or a cut closes the TCP
//! connection without a closing handshake. A cut that the handshake requests waits for the first
//! message. Messages are not compressed.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use super::account::{AccountState, parse_json};
use super::catalog::{self, Blanks, Canned, Content};
use super::connection::StopSignal;
use super::error::ApiError;
use super::fault::{Fault, Stop, Subject, delay};
use super::objects::ObjectStore;
use super::record::{RecordId, RequestRecord};
use super::reply::Reply;
use super::stream::Payload;
use super::told::Told;
use super::vendor_server::VendorServer;

/// Serves an open socket until the client or the server ends it.
pub(super) async fn serve(
    socket: WebSocket,
    server: Arc<VendorServer>,
    account: Arc<AccountState>,
    stop_early: Option<Stop>,
    mut stop: StopSignal,
) {
    let mut session = Session { socket, server, account, responses: ObjectStore::default() };
    let mut stop_early = stop_early;
    loop {
        let message = tokio::select! {
            message = session.socket.recv() => message,
            () = stop.stopped() => {
                let close = CloseFrame { code: close_code::AWAY, reason: "server stops".into() };
                let _ = session.socket.send(Message::Close(Some(close))).await;
                return;
            }
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
        };
        if session.exchange(text.as_str(), stop_early.take()).await.is_err() {
            return;
        }
    }
}

struct Session {
    socket: WebSocket,
    server: Arc<VendorServer>,
    account: Arc<AccountState>,
    responses: ObjectStore,
}

/// The socket ends here: the client has gone, or a fault closes it.
struct Ended;

impl Session {
    async fn exchange(&mut self, text: &str, stop: Option<Stop>) -> Result<(), Ended> {
        let record = self.record(text.len());
        let body = parse_json(text.as_bytes());
        let model = body.as_ref().ok().and_then(|body| body["model"].as_str()).unwrap_or_default();
        let subject = Subject { account: &self.account.account.name, model, is_kept: true };
        let fault = self.server.shared.faults.take(subject);
        if fault.is_some() || stop.is_some() {
            self.server.shared.log.fails(record);
        }
        let reply = match &fault {
            Some(Fault::Drop | Fault::Stale) => return Err(Ended),
            Some(Fault::Status { status, retry_after }) => {
                Err(ApiError::simulated(*status, *retry_after))
            }
            Some(Fault::Response { name, wait }) => {
                let blanks = Blanks { wait: *wait, model, request_id: "" };
                let canned = catalog::canned(name, blanks).ok_or(Ended)?;
                return self.send_canned(record, canned).await;
            }
            _ => body.and_then(|body| self.reply(body)),
        };
        let mut reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.refuse(record, &error).await,
        };
        delay(&fault).await;
        self.account.begin(&mut reply, Some(&mut self.responses));
        self.server.shared.log.created(record, &reply.created);
        if matches!(fault, Some(Fault::Lost)) {
            return Err(Ended);
        }
        let stop = stop.or(Stop::of(&fault));
        self.server.shared.log.told(record, Told::of(&reply, stop));
        self.server.shared.log.responded(
            record,
            Some(&self.account.account.name),
            200,
            reply.usage,
        );
        let Payload::Events(_, events) = reply.payload else {
            return Err(Ended);
        };
        let stop = stop.filter(|stop| stop.after() < events.len());
        for event in events.iter().take(stop.map_or(events.len(), Stop::after)) {
            self.send(event).await?;
        }
        match stop {
            Some(Stop::Cut(_) | Stop::End(_)) => Err(Ended),
            None | Some(Stop::Silence(_)) => Ok(()),
        }
    }

    /// A response of the catalog: its events as they are, its body as one event with the status and
    /// the headers in it.
    async fn send_canned(&mut self, record: RecordId, canned: Canned) -> Result<(), Ended> {
        let name = self.account.account.name.clone();
        self.server.shared.log.responded(record, Some(&name), canned.status, None);
        let event = match canned.content {
            Content::Events(events) => {
                for event in &events {
                    self.send(event).await?;
                }
                return Ok(());
            }
            Content::Text(_) => return Err(Ended),
            Content::Json(body) => body,
        };
        let headers: Map<_, _> =
            canned.headers.into_iter().map(|(name, value)| (name, json!(value))).collect();
        let mut event = json!({"error": event["error"]});
        event["type"] = json!("error");
        event["status"] = json!(canned.status);
        event["headers"] = json!(headers);
        self.send(&event).await
    }

    fn reply(&self, body: Value) -> Result<Reply, ApiError> {
        if body["type"] != "response.create" {
            return Err(ApiError::invalid("Expected a message of type `response.create`."));
        }
        self.account.reply_on_socket(body, &self.responses)
    }

    async fn refuse(&mut self, record: RecordId, error: &ApiError) -> Result<(), Ended> {
        let vendor = self.server.vendor;
        self.server.shared.log.responded(
            record,
            Some(&self.account.account.name),
            error.status,
            None,
        );
        let mut event = error.json(vendor, "");
        event["type"] = json!("error");
        event["status"] = json!(error.status);
        if let Some(seconds) = error.retry_after {
            event["headers"] = json!({"retry-after": seconds.to_string()});
        }
        self.send(&event).await
    }

    async fn send(&mut self, event: &Value) -> Result<(), Ended> {
        self.socket.send(Message::Text(event.to_string().into())).await.map_err(|_| Ended)
    }

    fn record(&self, body_length: usize) -> RecordId {
        self.server.shared.log.push(RequestRecord {
            vendor: self.server.vendor,
            account: Some(self.account.account.name.clone()),
            method: Method::from_bytes(b"WS").unwrap_or(Method::GET),
            path: "/v1/responses".to_owned(),
            headers: HeaderMap::new(),
            body_length,
            status: None,
            is_faulty: false,
            usage: None,
            told: Told::default(),
            created: vec![],
        })
    }
}
