//! Both ends of a WebSocket of the Responses API: every message of the client is a request, every
//! event of its answer a message.
//!
//! The handshake is written by hand, because the provider refuses it in every way that it knows. Its
//! key and its answer are those of RFC 6455, section 1.3: nobody here checks them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::client::{Manner, Message, Stage};
use crate::dialect;
use crate::fault::Fault;
use crate::history::{Answer, Digest, Digester, End};
use crate::http::Wire;

/// The headers of a client that asks for one.
pub(crate) const ASKS: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The head of a provider's consent, without its end.
const CONSENT: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
                       upgrade: websocket\r\n\
                       sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// How the last event of an answer begins.
const LAST: [&str; 2] = ["{\"type\":\"response.completed\"", "{\"type\":\"error\""];

/// Opens a WebSocket, sends messages one after the other, each behind the answer to the one before,
/// and closes it.
pub(crate) async fn converse(address: SocketAddr, message: &Message<'_>) -> End {
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return End::Broken(format!("connecting: {error}")),
    };
    let mut wire = Wire::new(stream);
    let asked = async {
        wire.write(&head(address, message)).await?;
        wire.head().await
    };
    let asked = match message.manner {
        Manner::Abort(Stage::Waiting(milliseconds)) => {
            match tokio::time::timeout(Duration::from_millis(milliseconds), asked).await {
                Ok(asked) => asked,
                Err(_) => return End::Aborted(message.manner.word()),
            }
        }
        _ => asked.await,
    };
    let head = match asked {
        Ok(Some(head)) => head,
        Ok(None) => return End::Broken("the handshake was not answered".to_owned()),
        Err(error) => return End::Broken(error.to_string()),
    };
    let mut answer = Answer {
        status: head.path.parse().unwrap_or_default(),
        arrival: head.text("x-soak-arrival").parse().ok(),
        decision: head.text("x-session-affinity-decision").to_owned(),
        ..Answer::default()
    };
    if answer.status != 101 {
        match wire.body(&head).await {
            Ok(body) => (answer.body, answer.is_whole) = (body, true),
            Err(error) => answer.text = error.to_string(),
        }
        return End::Answered(answer);
    }
    let begun = std::mem::take(&mut wire.buffer);
    let mut socket =
        WebSocketStream::from_partially_read(wire.stream, begun, Role::Client, None).await;
    let mut digester = Digester::default();
    talk(&mut socket, message, &mut digester, &mut answer).await;
    answer.body = digester.digest();
    End::Answered(answer)
}

fn head(address: SocketAddr, message: &Message<'_>) -> Vec<u8> {
    let mut head = format!("GET {} HTTP/1.1\r\nhost: {address}\r\n", message.path).into_bytes();
    for (name, value) in message.headers {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// The client's part, until either side ends it.
async fn talk<S>(
    socket: &mut WebSocketStream<S>,
    message: &Message<'_>,
    digester: &mut Digester,
    answer: &mut Answer,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for text in message.messages {
        if let Err(error) = socket.send(Frame::text(text.as_str())).await {
            answer.text = error.to_string();
            return;
        }
        if message.manner == Manner::Abort(Stage::Upload) {
            answer.is_left = true;
            return;
        }
        loop {
            match socket.next().await {
                Some(Ok(Frame::Text(event))) => {
                    digester.add(event.as_bytes());
                    if LAST.iter().any(|last| event.starts_with(last)) {
                        break;
                    }
                }
                Some(Ok(Frame::Close(_))) => {
                    // The provider has closed it.
                    answer.is_whole = true;
                    while let Some(Ok(_)) = socket.next().await {}
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    answer.text = error.to_string();
                    return;
                }
                None => return,
            }
            match message.manner {
                Manner::Abort(_) => {
                    answer.is_left = true;
                    return;
                }
                Manner::SlowReader => tokio::time::sleep(Duration::from_millis(15)).await,
                _ => {}
            }
        }
    }
    if socket.close(None).await.is_ok() {
        answer.is_whole = matches!(socket.next().await, Some(Ok(Frame::Close(_))));
    }
}

/// How a conversation ended for the provider.
pub(crate) enum Over {
    /// It was closed. What the client has sent is there whole if the client has closed it.
    Closed { received: Option<Digest>, sent: Digest, is_error_event: bool },
    /// The provider has cut it.
    Cut { has_content: bool },
    /// The other side is gone.
    Left,
}

/// The provider's part: what it does wrong, `headers` beside those of the handshake, and the id of its
/// first response. `over` hears how it ends before the client can.
pub(crate) async fn serve(
    wire: &mut Wire,
    fault: Option<Fault>,
    headers: &str,
    id: &str,
    over: impl FnOnce(Over),
) {
    if wire.write(format!("{CONSENT}{headers}\r\n").as_bytes()).await.is_err() {
        over(Over::Left);
        return;
    }
    if fault == Some(Fault::CutEarly) {
        over(Over::Cut { has_content: false });
        return;
    }
    let begun = std::mem::take(&mut wire.buffer);
    let mut socket =
        WebSocketStream::from_partially_read(&mut wire.stream, begun, Role::Server, None).await;
    let (mut received, mut sent) = (Digester::default(), Digester::default());
    let mut number = 0;
    let is_error_event = fault == Some(Fault::ErrorEvent);
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => received.add(text.as_bytes()),
            Some(Ok(Frame::Close(_))) => {
                let (received, sent) = (Some(received.digest()), sent.digest());
                over(Over::Closed { received, sent, is_error_event });
                // That sends the answer to it.
                let _ = socket.next().await;
                return;
            }
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => {
                over(Over::Left);
                return;
            }
        }
        let events = match is_error_event && number == 0 {
            true => vec![dialect::error_message()],
            false => dialect::messages(&format!("{id}_{number}")),
        };
        number += 1;
        let half = events.len() / 2;
        for (place, event) in events.iter().enumerate() {
            if fault == Some(Fault::CutLate) && place == half {
                over(Over::Cut { has_content: true });
                return;
            }
            sent.add(event.as_bytes());
            if socket.send(Frame::text(event.as_str())).await.is_err() {
                over(Over::Left);
                return;
            }
            if fault == Some(Fault::Drip) {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        if fault == Some(Fault::CloseAfter) {
            over(Over::Closed { received: None, sent: sent.digest(), is_error_event });
            if socket.close(None).await.is_ok() {
                while let Some(Ok(_)) = socket.next().await {}
            }
            return;
        }
    }
}

/// The messages of a client, and all of them as one.
pub(crate) fn messages(texts: impl Iterator<Item = String>, model: &str) -> (Vec<String>, Bytes) {
    let messages: Vec<String> = texts.map(|text| dialect::create(model, &text)).collect();
    let whole = messages.concat().into();
    (messages, whole)
}

/// Whether a provider would have consented: it answers what is wrong before in plain HTTP.
pub(crate) fn is_refused(fault: Option<Fault>) -> bool {
    matches!(
        fault,
        Some(
            Fault::Limit(_)
                | Fault::LimitUntold
                | Fault::Status(_)
                | Fault::Denied
                | Fault::Refused
                | Fault::EarlyError
                | Fault::NotHere
        )
    )
}
