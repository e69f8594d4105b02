//! Leaves a file in `OUT_DIR` for a test to read when it runs.

use std::path::Path;
use std::{env, fs};

fn main() {
    let directory = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&directory).join("built.txt"), "made by the build script\n").expect("OUT_DIR is writable");
    println!("cargo:rerun-if-changed=build.rs");
}
