//! The time of day of another process, moved by a test.
//!
//! An Envoy that is started with this library (`LD_PRELOAD`) asks it, in place of the C library,
//! what time it is. To the time of day it adds the seconds that are in the file that `STEPPED_CLOCK`
//! names, eight bytes in the order of the machine. The file is mapped into memory, so a step is
//! there with the next question. Monotonic time goes on as it is: timers and timeouts stay right,
//! as they do when an administrator or NTP sets the clock of a machine.
//!
//! libfaketime, which does the same for most programs, stops Envoy from starting. It looks for the
//! functions that it replaces when one of them is called for the first time; a search that fails
//! allocates; and Envoy's own allocator, which calls one of them (`poll`) with its lock held, waits
//! for itself. What is here never allocates and looks for nothing.
//!
//! Nothing of it may be linked into a test: the test would move its own clock.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "it takes the place of a function of the C library")]

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// Where the step is mapped; null without one.
static STEP: AtomicPtr<AtomicI64> = AtomicPtr::new(ptr::null_mut());

/// The loader calls it before anything of the program runs.
#[used]
#[unsafe(link_section = ".init_array")]
static MAP: extern "C" fn() = map;

extern "C" fn map() {
    // SAFETY: names are valid C strings, and nobody else changes the environment yet.
    let file = unsafe {
        let path = libc::getenv(c"STEPPED_CLOCK".as_ptr());
        if path.is_null() {
            return;
        }
        libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC)
    };
    // SAFETY: the kernel chooses the address. What cannot be mapped is an error.
    let mapped = unsafe {
        let bytes = size_of::<AtomicI64>();
        libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file, 0)
    };
    if mapped != libc::MAP_FAILED {
        STEP.store(mapped.cast(), Ordering::Release);
    }
}

/// What the C library has under this name.
///
/// # Safety
/// As there: `time` may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: these are the arguments of the call.
    let status = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    // SAFETY: a step that is mapped stays so, and is only read; its file has all of its bytes.
    let step = unsafe { STEP.load(Ordering::Acquire).as_ref() };
    let is_time_of_day = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    if let Some(step) = step.filter(|_| status == 0 && is_time_of_day) {
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec = (*time).tv_sec.saturating_add(step.load(Ordering::Relaxed)) };
    }
    status as c_int
}
