//! The Responses API over a WebSocket: every text message `response.create` is a request, every
//! event of its answer a text message. Responses with `store: false` are known on their socket
//! only.
//!
//! Faults work on the handshake as on any request, and then on each message: a status becomes an
//! `error` event, a drop or a cut closes the TCP connection without a closing handshake. A cut
//! asked for in the handshake waits for the first message. Messages are not compressed.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::account::{AccountState, Answer, parse_json};
use super::connection::StopSignal;
use super::error::ApiError;
use super::fault::{Fault, cut, wait_as_asked};
use super::record::{RecordId, RequestRecord};
use super::response_store::ResponseStore;
use super::stream::Payload;
use super::vendor_server::VendorServer;

/// Serves an open socket until the client or the server ends it.
pub(super) async fn serve(
    socket: WebSocket,
    server: Arc<VendorServer>,
    account: Arc<AccountState>,
    cut: Option<usize>,
    mut stop: StopSignal,
) {
    let mut session = Session { socket, server, account, responses: ResponseStore::default() };
    let mut fault = cut.map(Fault::CutAfter);
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
        if session.exchange(text.as_str(), fault.take()).await.is_err() {
            return;
        }
    }
}

struct Session {
    socket: WebSocket,
    server: Arc<VendorServer>,
    account: Arc<AccountState>,
    responses: ResponseStore,
}

/// The socket is of no more use: the client has gone, or a fault asks to close it.
struct Ended;

impl Session {
    async fn exchange(&mut self, text: &str, fault: Option<Fault>) -> Result<(), Ended> {
        let record = self.record(text.len());
        let fault = fault.or_else(|| self.server.shared.faults.take(&self.account.account.name));
        let answer = match fault {
            Some(Fault::Drop) => return Err(Ended),
            Some(Fault::Status { status, retry_after }) => {
                Err(ApiError::simulated(status, retry_after))
            }
            _ => self.answer(text),
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.refuse(record, &error).await,
        };
        wait_as_asked(&fault).await;
        self.account.begin(&mut answer, Some(&mut self.responses), Instant::now());
        self.server.shared.log.answered(
            record,
            Some(&self.account.account.name),
            200,
            answer.usage,
        );
        let Payload::Events(_, events) = answer.payload else {
            return Err(Ended);
        };
        let cut = cut(&fault).filter(|cut| *cut < events.len());
        for event in events.iter().take(cut.unwrap_or(events.len())) {
            self.send(event).await?;
        }
        cut.map_or(Ok(()), |_| Err(Ended))
    }

    fn answer(&self, text: &str) -> Result<Answer, ApiError> {
        let body = parse_json(text.as_bytes())?;
        if body["type"] != "response.create" {
            return Err(ApiError::invalid("A message of type `response.create` is expected."));
        }
        self.account.answer_on_socket(body, &self.responses, Instant::now())
    }

    async fn refuse(&mut self, record: RecordId, error: &ApiError) -> Result<(), Ended> {
        let vendor = self.server.vendor;
        self.server.shared.log.answered(
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
            usage: None,
        })
    }
}
