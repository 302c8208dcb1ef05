//! Requests side by side that have begun and not ended.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;

use crate::context::{Context, Exchange};
use crate::exchange::Request;
use crate::gateway::{CONTINUE, Gateway};

/// A request that has not ended.
#[derive(Debug)]
pub struct Upload {
    id: u32,
    /// Whether the listener has let it through.
    pub is_sent: bool,
}

impl Gateway {
    /// A client begins a request: its headers and all its pieces arrive, its end does not.
    ///
    /// # Errors
    /// If the module traps.
    pub fn begin(&mut self, request: &Request) -> Result<Upload> {
        let exchange = Exchange {
            request: request.headers.clone(),
            attributes: request.attributes.clone(),
            ..Exchange::default()
        };
        let context = Context::of(&Rc::new(RefCell::new(exchange)));
        let id = self.vm.open(&self.listener, context)?;
        let count = request.headers.len() as u32;
        let mut action = self.listener(id, "proxy_on_request_headers", &[count, 0])?;
        for piece in &request.pieces {
            let body = &mut self.vm.context(id)?.request_body;
            if action == CONTINUE {
                // What has passed is gone; what is held grows.
                body.clear();
            }
            body.extend_from_slice(piece);
            let size = body.len() as u32;
            action = self.listener(id, "proxy_on_request_body", &[size, 0])?;
        }
        Ok(Upload { id, is_sent: action == CONTINUE })
    }

    /// Its client leaves.
    ///
    /// # Errors
    /// If the module traps.
    pub fn leave(&mut self, upload: &Upload) -> Result<()> {
        self.vm.close(&self.listener, upload.id, true)
    }
}
