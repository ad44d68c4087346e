//! Links the addon for Node and compiles the C trampoline of the lock shim.

fn main() {
    napi_build::setup();
    println!("cargo:rerun-if-changed=src/engine/fcntl.c");
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        cc::Build::new().file("src/engine/fcntl.c").compile("fusion_fcntl");
    }
}
