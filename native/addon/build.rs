//! Tells the linker that N-API's symbols come from the Node that loads the addon.

fn main() {
    napi_build::setup();
}
