//! Declarations of the C library libpeft, one for one with `peft.h`, whose text says what each function does and who may
//! call it. `ffi.rs` is generated from the header; `build.rs` finds the library or builds it.
//!
//! Left out: safety. The crate `libpeft` has it; this one is for those who wrap the C interface in another way.
#![no_std]
#![allow(non_camel_case_types)]

#[rustfmt::skip] // laid out by its generator
mod ffi;
pub use ffi::*;
