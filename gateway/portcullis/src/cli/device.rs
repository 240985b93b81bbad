//! `portcullis device`.

mod add;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use portcullis_proto::v1::{Device, InviteDeviceRequest, ListDevicesRequest, NameRequest};
use serde_json::{Value, json};

use super::{Context, revocation};
use crate::exit::Exit;
use crate::output::{Fields, Table};
use crate::time;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis device add ada-laptop --user ada
  portcullis device add ada-phone --user ada --preshared-key
  portcullis device add ada-hotel --user ada --for 8h
  portcullis device list --user ada")]
pub(super) struct DeviceCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a device and print its WireGuard configuration and QR code
    #[command(after_help = "\
The key pair is made by this command; control is given the public key alone. With --public-key
the pair stays where it was made, and the configuration lacks the private key.

Examples:
  portcullis device add ada-laptop --user ada --config-out ada-laptop.conf
  portcullis device add ada-hotel --user ada --for 8h
  portcullis device add server7 --user ada --public-key \"$(cat server7.pub)\" --no-qr")]
    Add(add::Add),
    /// Invite a user's device to a session-key location: it makes its own key known, once
    #[command(after_help = "\
Prints the command for the device. The invitation opens no session: the login after it does.

Example:
  portcullis device invite --user ada --location vault --valid 2h")]
    Invite {
        #[arg(long)]
        user: String,
        #[arg(long)]
        location: String,
        /// How long the invitation is good
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        valid: time::Span,
    },
    /// List devices
    List {
        /// Of this user
        #[arg(long)]
        user: Option<String>,
        /// Of this location
        #[arg(long)]
        location: Option<String>,
    },
    /// Show a device
    Show { name: String },
    /// Remove a device and end its session
    Remove { name: String },
}

impl DeviceCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::Add(args) => args.run(context).await,
            Action::Invite {
                user,
                location,
                valid,
            } => invite(user, location, valid, context).await,
            Action::List { user, location } => list(user, location, context).await,
            Action::Show { name } => show(name, context).await,
            Action::Remove { name } => {
                let done = format!("Device {name} is removed.");
                let status = context
                    .admin()
                    .await?
                    .remove_device(NameRequest { name })
                    .await?
                    .into_inner();
                revocation::report(context.output, &done, &status)
            }
        }
    }
}

async fn invite(
    user: String,
    location: String,
    valid: time::Span,
    context: Context,
) -> Result<Exit> {
    let request = InviteDeviceRequest {
        user,
        location,
        valid_ms: valid.as_millis(),
    };
    let mut admin = context.admin().await?;
    let invite = admin.invite_device(request).await?.into_inner();
    let command = format!(
        "portcullis connect {} --server {} --ca-fingerprint {} --user {} --enrol {}",
        invite.location, invite.server, invite.ca_fingerprint, invite.user, invite.token
    );
    context.output.answer(
        || {
            json!({
                "user": invite.user,
                "location": invite.location,
                "token": invite.token,
                "expires": time::json(invite.expires_ms),
                "server": invite.server,
                "ca_fingerprint": invite.ca_fingerprint,
                "command": command,
            })
        },
        || {
            format!(
                "On the device, as root:\n\n  {command}\n\nGood once, until {}. This is shown only once.\n",
                time::text(invite.expires_ms)
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn list(user: Option<String>, location: Option<String>, context: Context) -> Result<Exit> {
    let request = ListDevicesRequest {
        user: user.unwrap_or_default(),
        location: location.unwrap_or_default(),
    };
    let devices = context
        .admin()
        .await?
        .list_devices(request)
        .await?
        .into_inner()
        .devices;
    context.output.answer(
        || json!({ "devices": devices.iter().map(json_of).collect::<Vec<_>>() }),
        || {
            let mut table = Table::new(&[
                "NAME",
                "USER",
                "LOCATION",
                "ADDRESSES",
                "ENDPOINT",
                "HANDSHAKE",
                "ENDS",
            ]);
            for device in &devices {
                table.row([
                    device.name.clone(),
                    device.user.clone(),
                    device.location.clone(),
                    device.addresses.join(","),
                    device.endpoint.clone(),
                    time::text(device.last_handshake_ms),
                    time::text(device.ends_ms),
                ]);
            }
            table.render("No devices: portcullis device add NAME --user USER")
        },
    )?;
    Ok(Exit::Done)
}

async fn show(name: String, context: Context) -> Result<Exit> {
    let device = context
        .admin()
        .await?
        .get_device(NameRequest { name })
        .await?
        .into_inner();
    context.output.answer(
        || json_of(&device),
        || {
            Fields::default()
                .field("Name", &device.name)
                .field("Id", &device.id)
                .field("Called", &device.label)
                .field("User", &device.user)
                .field("Location", &device.location)
                .field("Public key", STANDARD.encode(&device.public_key))
                .field(
                    "Pre-shared key",
                    if device.has_preshared_key {
                        "yes"
                    } else {
                        "no"
                    },
                )
                .field("Addresses", device.addresses.join(", "))
                .field("Endpoint", &device.endpoint)
                .field("Last handshake", time::text(device.last_handshake_ms))
                .field("Received", format!("{} bytes", device.rx_bytes))
                .field("Sent", format!("{} bytes", device.tx_bytes))
                .field("Created", time::text(device.created_ms))
                .field("Ends", time::text(device.ends_ms))
                .render()
        },
    )?;
    Ok(Exit::Done)
}

fn json_of(device: &Device) -> Value {
    json!({
        "id": device.id,
        "name": device.name,
        "user": device.user,
        "location": device.location,
        "public_key": STANDARD.encode(&device.public_key),
        "addresses": device.addresses,
        "has_preshared_key": device.has_preshared_key,
        "created": time::json(device.created_ms),
        "ends": time::json(device.ends_ms),
        "label": (!device.label.is_empty()).then_some(&device.label),
        "endpoint": (!device.endpoint.is_empty()).then_some(&device.endpoint),
        "last_handshake": time::json(device.last_handshake_ms),
        "rx_bytes": device.rx_bytes,
        "tx_bytes": device.tx_bytes,
    })
}
