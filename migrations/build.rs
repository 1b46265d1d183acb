//! Rebuilds when a migration is added: the compiler by itself only notices changes of those it knows.

fn main() {
    println!("cargo::rerun-if-changed=.");
}
