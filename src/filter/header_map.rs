//! The headers of a stream, taken from the host as they come.
//!
//! The SDK would copy each name and value into memory of its own, and trap the VM on a name that is
//! not UTF-8. [`Headers`] keeps the host's one piece of memory, so this is the one host call that is
//! made without the SDK.

use std::ptr;

use crate::request::Headers;

/// Which headers, as the ABI numbers them.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Map {
    Request = 0,
    Response = 2,
}

#[allow(unsafe_code)]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
}

/// The headers of the current stream; none if the host refuses.
pub(super) fn headers(map: Map) -> Headers {
    Headers::of_map(pairs(map))
}

#[allow(unsafe_code)]
fn pairs(map: Map) -> Vec<u8> {
    let mut data = ptr::null_mut();
    let mut size = 0;
    // SAFETY: both pointers are valid for the call, which writes them or fails.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
    if status != 0 || data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host got this memory from the SDK's `proxy_on_memory_allocate`, which takes
    // exactly `size` bytes from the global allocator and gives them away. The SDK takes results of
    // host calls back in the same way.
    unsafe { Vec::from_raw_parts(data, size, size) }
}
