//! Links the addon for Node and compiles the C trampoline of the lock shim.

fn main() {
    napi_build::setup();
}
