//! Gives the shared library the name that programs record when they link it, so that a later, incompatible library
//! cannot be loaded in its place, and has equal functions folded into one where the linker can.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let cfg = |name: &str| var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    match cfg("OS").as_str() {
        "macos" | "ios" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libinlaid.0.dylib");
        }
        "windows" => {}
        _ => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libinlaid.so.0"),
    }
    // Rust links this target with its own lld unless somebody chose another linker. Generic code makes many equal
    // functions: a tenth of the library.
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let chosen = var("RUSTC_LINKER").is_ok() || flags.contains("linker") || flags.contains("-fuse-ld");
    if cfg("OS") == "linux" && cfg("ARCH") == "x86_64" && cfg("ENV") == "gnu" && !chosen {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--icf=all");
    }
}
