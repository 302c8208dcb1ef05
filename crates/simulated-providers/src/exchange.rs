//! One HTTP request: its account, the fault it meets, the response, and the record of it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::account::AccountState;
use super::api::Api;
use super::catalog::Blanks;
use super::connection::Connection;
use super::error::ApiError;
use super::fault::{self, FAULT_HEADER, Fault, Stop, Subject, delay};
use super::record::RecordId;
use super::told::Told;
use super::turn::{self, Usage};
use super::vendor_server::VendorServer;
use super::{catalog, compress, respond, websocket};

/// The longest body of a request, and the longest message on a WebSocket.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;

/// Makes the response to a request. It is recorded before it is returned, whatever it is.
pub(super) async fn handle(
    server: Arc<VendorServer>,
    connection: Connection,
    request: Request<Body>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let account = server.account(&parts);
    let name = account.as_ref().map(|state| state.account.name.as_str());
    let is_kept = connection.take();
    let under_way = account.as_ref().map(|state| Arc::clone(&state.under_way));
    let record = server.shared.log.arrived(server.vendor, name, &parts);
    let request_id = turn::request_id();
    let exchange = Exchange { server: &server, record, connection: &connection, is_kept };
    let outcome = exchange.respond(account.clone(), &mut parts, body, &request_id).await;
    let (response, usage) = outcome
        .unwrap_or_else(|error| (respond::error(server.vendor, &parts, &error, &request_id), None));
    let accepted = parts.headers.get(header::ACCEPT_ENCODING);
    let mut response = compress::compress(server.vendor, accepted, response);
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        server.shared.log.compressed(record);
    }
    server.shared.log.responded(record, name, response.status().as_u16(), usage);
    if let Some(account) = &account {
        respond::add(response.headers_mut(), &account.group().headers());
    }
    respond::add_headers(
        server.vendor,
        name.unwrap_or("none"),
        &request_id,
        response.headers_mut(),
    );
    // The request is under way until the last byte of its response is.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &under_way;
            frame
        }))
    })
}

/// A request and what it came on.
struct Exchange<'a> {
    server: &'a Arc<VendorServer>,
    record: RecordId,
    connection: &'a Connection,
    is_kept: bool,
}

impl Exchange<'_> {
    async fn respond(
        &self,
        account: Option<Arc<AccountState>>,
        parts: &mut Parts,
        body: Body,
        request_id: &str,
    ) -> Result<(Response<Body>, Option<Usage>), ApiError> {
        let server = self.server;
        let body = read(body).await?;
        server.shared.log.body_read(self.record, body.len());
        let account = account.ok_or_else(ApiError::unauthorized)?;
        let api = Api::of(server.vendor, &parts.method, &parts.uri);
        let model = match &api {
            Ok(api) if self.may_fail(parts) => model(api, &body),
            _ => String::new(),
        };
        let fault = match self.fault(&account, &parts.headers, &model)? {
            Some(Fault::Late(duration, fault)) => {
                tokio::time::sleep(duration).await;
                Some(*fault)
            }
            fault => fault,
        };
        match &fault {
            Some(Fault::Drop | Fault::Stale) => match self.connection.abort().await {},
            Some(Fault::Status { status, retry_after }) => {
                return Err(ApiError::simulated(*status, *retry_after));
            }
            Some(Fault::UnsupportedModel) => {
                return Err(ApiError::invalid("The requested model is not supported."));
            }
            Some(Fault::Response { name, wait }) => {
                let blanks = Blanks { wait: *wait, model: &model, request_id };
                let canned = catalog::canned(name, blanks).ok_or_else(ApiError::unauthorized)?;
                return Ok((respond::canned(canned, api.as_ref().unwrap_or(&Api::Models)), None));
            }
            _ => {}
        }
        let api = api?;
        if api == Api::OpenAiSocket {
            delay(&fault).await;
            let stop = Stop::of(&fault);
            let response =
                upgrade(Arc::clone(server), account, self.connection, parts, stop).await?;
            return Ok((response, None));
        }
        let mut reply = account.reply(&api, &parts.headers, &body)?;
        server.shared.log.created(self.record, &reply.created);
        delay(&fault).await;
        account.begin(&mut reply, None);
        server.shared.log.created(self.record, &reply.created);
        if fault == Some(Fault::Lost) {
            match self.connection.abort().await {}
        }
        let stop = Stop::of(&fault);
        server.shared.log.told(self.record, Told::of(&reply, stop));
        let mut response = respond::reply(reply.payload, stop);
        respond::add(response.headers_mut(), &reply.headers);
        Ok((response, reply.usage))
    }

    /// Whether it is worth the while to look for the model.
    fn may_fail(&self, parts: &Parts) -> bool {
        parts.headers.contains_key(FAULT_HEADER) || !self.server.shared.faults.is_empty()
    }

    /// The fault that is due, if there is one.
    fn fault(
        &self,
        account: &AccountState,
        headers: &HeaderMap,
        model: &str,
    ) -> Result<Option<Fault>, ApiError> {
        let subject = Subject { account: &account.account.name, model, is_kept: self.is_kept };
        let fault = match fault::from_headers(headers, subject)? {
            Some(fault) => Some(fault),
            None => self.server.shared.faults.take(subject),
        };
        let is_overrun = match fault {
            Some(Fault::Concurrency { limit, .. }) => account.under_way() > limit,
            None | Some(Fault::SlowFirstByte(_)) => false,
            Some(_) => true,
        };
        if is_overrun {
            self.server.shared.log.fails(self.record);
        }
        Ok(match fault {
            Some(Fault::Concurrency { .. }) if is_overrun => Some(Fault::status(429)),
            fault => fault,
        })
    }
}

/// The model that a request names; empty if it names none.
fn model(api: &Api, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    api.model().or(body["model"].as_str()).unwrap_or_default().to_owned()
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            413,
            format!("The body of the request is longer than {MAX_BODY_BYTES} bytes."),
        )),
        Err(error) => {
            Err(ApiError::invalid(format!("The body of the request could not be read: {error}")))
        }
    }
}

async fn upgrade(
    server: Arc<VendorServer>,
    account: Arc<AccountState>,
    connection: &Connection,
    parts: &mut Parts,
    stop_early: Option<Stop>,
) -> Result<Response<Body>, ApiError> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade
        .map_err(|_| ApiError::new(405, "GET is for WebSockets here; otherwise use POST."))?;
    let stop = connection.stop_signal();
    let upgrade = upgrade.max_message_size(MAX_BODY_BYTES).max_frame_size(MAX_BODY_BYTES);
    // As OpenAI does: of what browsers offer, the item without a key.
    let upgrade = upgrade.protocols(["realtime"]);
    Ok(upgrade
        .on_upgrade(move |socket| websocket::serve(socket, server, account, stop_early, stop)))
}
