//! Migrations are embedded by a macro, which Cargo cannot see the files of.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
