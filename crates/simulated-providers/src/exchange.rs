//! One HTTP request: its account, the fault it meets, the response, and the record of it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::account::AccountState;
use super::api::Api;
use super::connection::Connection;
use super::error::ApiError;
use super::fault::{self, Fault, cut, delay};
use super::record::RecordId;
use super::turn::{self, Usage};
use super::vendor_server::VendorServer;
use super::{respond, websocket};

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
    let record = server.shared.log.arrived(server.vendor, name, &parts);
    let request_id = turn::request_id();
    let outcome = exchange(&server, account.clone(), record, &connection, &mut parts, body).await;
    let (mut response, usage) = outcome
        .unwrap_or_else(|error| (respond::error(server.vendor, &parts, &error, &request_id), None));
    server.shared.log.responded(record, name, response.status().as_u16(), usage);
    respond::add_headers(
        server.vendor,
        name.unwrap_or("none"),
        &request_id,
        response.headers_mut(),
    );
    response
}

async fn exchange(
    server: &Arc<VendorServer>,
    account: Option<Arc<AccountState>>,
    record: RecordId,
    connection: &Connection,
    parts: &mut Parts,
    body: Body,
) -> Result<(Response<Body>, Option<Usage>), ApiError> {
    let body = read(body).await?;
    server.shared.log.body_read(record, body.len());
    let account = account.ok_or_else(ApiError::unauthorized)?;
    let name = &account.account.name;
    let fault = match fault::from_headers(&parts.headers, name)? {
        Some(fault) => Some(fault),
        None => server.shared.faults.take(name),
    };
    match fault {
        Some(Fault::Drop) => match connection.abort().await {},
        Some(Fault::Status { status, retry_after }) => {
            return Err(ApiError::simulated(status, retry_after));
        }
        Some(Fault::UnsupportedModel) => {
            return Err(ApiError::invalid("The requested model is not supported."));
        }
        _ => {}
    }
    let api = Api::of(server.vendor, &parts.method, &parts.uri)?;
    if api == Api::OpenAiSocket {
        delay(&fault).await;
        let response = upgrade(Arc::clone(server), account, connection, parts, fault).await?;
        return Ok((response, None));
    }
    let mut reply = account.reply(&api, &body, Instant::now())?;
    delay(&fault).await;
    account.begin(&mut reply, None, Instant::now());
    let usage = reply.usage;
    Ok((respond::reply(reply.payload, cut(&fault)), usage))
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
    fault: Option<Fault>,
) -> Result<Response<Body>, ApiError> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade
        .map_err(|_| ApiError::new(405, "GET is for WebSockets here; otherwise use POST."))?;
    let stop = connection.stop_signal();
    let upgrade = upgrade.max_message_size(MAX_BODY_BYTES).max_frame_size(MAX_BODY_BYTES);
    Ok(upgrade
        .on_upgrade(move |socket| websocket::serve(socket, server, account, cut(&fault), stop)))
}
