//! Frames of AWS' event streams: lengths, headers, a payload, and checksums of both.

use flate2::Crc;
use serde_json::{Value, json};

/// A frame with an event: its name and payload, or the event of a model, which goes into a `chunk`
/// in base64.
pub(super) fn of(event: &Value) -> Vec<u8> {
    let name = event["event"].as_str().unwrap_or_default();
    let payload = match &event["model"] {
        Value::Null => event["payload"].to_string(),
        model => {
            json!({"bytes": base64(model.to_string().as_bytes()), "p": "abcdefgh"}).to_string()
        }
    };
    frame(name, payload.as_bytes())
}

fn frame(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = (headers.len() + payload.len() + 16) as u32;
    let mut frame = [total.to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    frame.extend_from_slice(&checksum(&frame));
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload);
    let checksum = checksum(&frame);
    frame.extend_from_slice(&checksum);
    frame
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_it_says_and_has_the_checksums_of_aws() {
        // The first message of the SDKs' own tests: no headers, no payload.
        assert_eq!(checksum(&[0, 0, 0, 0x10, 0, 0, 0, 0]), [0x05, 0xc2, 0x48, 0xeb]);
        let frame = of(&json!({"event": "metadata", "payload": {"usage": {}}}));
        assert_eq!(frame[..4], (frame.len() as u32).to_be_bytes());
        assert!(frame[..frame.len() - 4].ends_with(br#"{"usage":{}}"#));
    }

    #[test]
    fn the_event_of_a_model_is_in_base64() {
        assert_eq!(
            ["", "f", "fo", "foo"].map(|it| base64(it.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v"]
        );
        let frame =
            String::from_utf8_lossy(&of(&json!({"event": "chunk", "model": {}}))).into_owned();
        assert!(frame.contains(r#"{"bytes":"e30=","p":"abcdefgh"}"#), "{frame}");
    }
}
