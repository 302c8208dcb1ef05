//! Bodies of every size that providers take, however they are sent: none gets a 413, and all arrive
//! as they were sent.

use anyhow::Result;
use bytes::Bytes;
use envoy_harness::client::{self, Body, Protocol};
use http_body_util::{BodyExt, StreamBody};
use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::header::HeaderValue;

use crate::support::{modes, post, send_by, served};

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    WithLength,
    /// Without a length, in large chunks.
    Chunked,
    /// In small pieces, each of which waits until the one before is on its way.
    Slow,
    /// Its end is not told by a body callback.
    WithTrailers,
}

/// The body of a message with exactly this many bytes.
fn message_of(bytes: usize) -> Bytes {
    const START: &str =
        r#"{"model":"claude-sonnet-4-5","max_tokens":8,"messages":[{"role":"user","content":""#;
    const END: &str = r#""}]}"#;
    let text = "x".repeat(bytes - START.len() - END.len());
    [START, &text, END].concat().into()
}

fn pieces(whole: &Bytes, size: usize) -> Vec<Bytes> {
    (0..whole.len()).step_by(size).map(|at| whole.slice(at..whole.len().min(at + size))).collect()
}

fn sent_as(form: Form, whole: Bytes) -> (Protocol, Body) {
    match form {
        Form::WithLength => (Protocol::Http1, client::whole(whole)),
        Form::Chunked => (Protocol::Http1, client::chunks(pieces(&whole, 1 << 20))),
        Form::Slow => {
            let pieces = futures_util::stream::unfold(
                pieces(&whole, 48_000).into_iter(),
                async |mut pieces| {
                    tokio::task::yield_now().await;
                    Some((Ok(Frame::data(pieces.next()?)), pieces))
                },
            );
            (Protocol::Http1, StreamBody::new(pieces).boxed_unsync())
        }
        Form::WithTrailers => {
            let trailers =
                HeaderMap::from_iter([(hyper::header::ETAG, HeaderValue::from_static("7"))]);
            let chunks = client::chunks_and_trailers(pieces(&whole, 1 << 20), trailers);
            (Protocol::Http2, chunks)
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn no_body_that_providers_take_gets_a_413_however_it_is_sent() -> Result<()> {
    let forms = [Form::WithLength, Form::Chunked, Form::Slow, Form::WithTrailers];
    for (mode, gateway) in modes(Ok).await? {
        for (turn, megabytes) in [1, 8, 17, 24, 32].into_iter().enumerate() {
            let whole = message_of(megabytes << 20);
            for (number, form) in forms.into_iter().enumerate() {
                let (protocol, sent) = sent_as(form, whole.clone());
                let mut request = post("/v1/messages");
                // Half of them are forwarded at once, the other half is held.
                if (turn + number).is_multiple_of(2) {
                    request =
                        request.header("x-claude-code-session-id", format!("{megabytes} {number}"));
                }
                let response = send_by(&gateway, protocol, request.body(sent)?).await?;
                assert_eq!(response.status, 200, "{mode:?} {megabytes} MB {form:?}");
                served(&response)?;
                let arrived = gateway.providers.requests().pop().unwrap().body_length;
                assert_eq!(arrived, whole.len(), "{mode:?} {megabytes} MB {form:?}");
            }
        }
        gateway.stop().await?;
    }
    Ok(())
}
