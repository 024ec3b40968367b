//! Marks the module as never to be unloaded: closing a Lua state (every request under `lua_code_cache off`)
//! would otherwise unmap code that the background thread is still running.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
