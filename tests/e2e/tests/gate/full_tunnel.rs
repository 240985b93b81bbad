//! A location that routes everything into its tunnel, and with it the way to its own gateway.

use anyhow::{Context as _, Result, ensure};
use e2e_tests::{Namespace, Options, eventually, run, with_gate_prepared};

use crate::SOON;
use crate::connect::{first_use, last_event, vault, with_public};

fn ip(namespace: &Namespace, args: &[&str]) -> Result<String> {
    Ok(run(namespace.command("ip").args(args), "")?.stdout)
}

/// All that decides where packets go, without what counts down.
fn routing(namespace: &Namespace) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for args in [
        &["-4", "rule"][..],
        &["-6", "rule"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ] {
        lines.extend(ip(namespace, args)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

#[test]
fn everything_goes_into_the_tunnel_but_the_tunnel_itself() -> Result<()> {
    let everything = Options {
        routes: &["0.0.0.0/0", "::/0"],
        ..vault()
    };
    with_gate_prepared(everything, with_public, |gate, ()| {
        let client = first_use(gate)?;
        let machine = client.machine();
        // The gateway is where everything is: behind the machine's default route.
        machine.ip(
            "address del 192.0.2.11/24 dev wan0\naddress add 192.0.2.11/32 dev wan0\n\
             route add default dev wan0 src 192.0.2.11\n",
        )?;
        let before = routing(machine)?;
        let leads = |to: &str| -> Result<String> {
            let found = ip(machine, &["route", "get", to])?;
            let (_, rest) = found.split_once(" dev ").context("a device")?;
            Ok(rest.split(' ').next().unwrap_or_default().to_owned())
        };

        let running = client.connect()?;
        ensure!(leads("198.51.100.1")? == "office", "elsewhere");
        ensure!(leads("2001:db8::1")? == "office", "elsewhere, by IPv6");
        ensure!(leads("192.0.2.1")? == "wan0", "the gateway");
        // What happens to the session is heard, because the server is not in the tunnel either.
        gate.ask(&["session", "revoke", "--user", "alice"])?;
        let ended = running.finish()?;
        ensure!(ended.code == 7, "{ended:?}");
        ensure!(
            last_event(&ended.stdout)?["state"] == "revoked",
            "{ended:?}"
        );
        ensure!(routing(machine)? == before, "{:?}", routing(machine)?);

        // What a killed process leaves is taken away too.
        drop(client.connect()?);
        ensure!(leads("198.51.100.1")? == "office", "it is left");
        let done = client.show("disconnect")?;
        ensure!(done.code == 0, "{done:?}");
        eventually("all is as it was", SOON, || Ok(routing(machine)? == before))?;
        Ok(())
    })
}
