//! How many instructions the kernel's verifier walks through for each program. The first argument names
//! the kernel; without it, it is the machine's own.

use anyhow::Context as _;
use datapath_tests::{
    figure::Figure,
    kernel::{Kernel, program},
};
use gateway_common::abi::Direction;

fn main() -> anyhow::Result<()> {
    let kernel = std::env::args().nth(1).unwrap_or_else(|| "native".into());
    let mut gate = Kernel::open()?;
    for (direction, name) in [
        (Direction::FromPeer, "from_peer"),
        (Direction::ToPeer, "to_peer"),
    ] {
        let info = program(gate.datapath.object(), direction)?.info()?;
        let walked = info
            .verified_instruction_count()
            .context("the kernel does not tell")?;
        Figure::new(
            format!("insns/{name}/{kernel}"),
            "instructions",
            f64::from(walked),
        )
        .print()?;
    }
    Ok(())
}
