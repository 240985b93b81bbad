//! `portcullis device add`: the key pair is made here, and only its public half goes to control.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use portcullis_client::wireguard::ClientConfig;
use portcullis_client::{KeyPair, PublicKey};
use portcullis_proto::v1::admin_client::AdminClient;
use portcullis_proto::v1::{AddDeviceRequest, AddDeviceResponse, ListRequest};
use serde_json::json;
use tonic::transport::Channel;

use super::json_of;
use crate::cli::{Context, choice};
use crate::exit::Exit;
use crate::qr;
use crate::time::{self, Span};

#[derive(Debug, Args)]
pub(super) struct Add {
    name: String,
    /// Whose device it is
    #[arg(long)]
    user: String,
    /// The location it connects to; may be left out where there is only one
    #[arg(long)]
    location: Option<String>,
    /// The public key of a pair made elsewhere, in base64
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// Give the device a pre-shared key too
    #[arg(long)]
    preshared_key: bool,
    /// Remove the device after this time, a minute to 24 hours: `8h`, `90m`
    #[arg(long = "for", value_name = "DURATION")]
    lifetime: Option<Span>,
    /// Print no QR code
    #[arg(long)]
    no_qr: bool,
    /// Write the configuration to this new file, mode 0600, instead of printing it
    #[arg(long, value_name = "FILE")]
    config_out: Option<PathBuf>,
}

impl Add {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let mut admin = context.admin().await?;
        // Whatever can fail does so before anything is stored.
        let location = choice::location(&mut admin, self.location.clone()).await?;
        require_gateway(&mut admin, &location).await?;
        let file = self
            .config_out
            .as_deref()
            .map(NewFile::create)
            .transpose()?;
        let pair = match self.public_key {
            Some(_) => None,
            None => Some(KeyPair::generate()?),
        };
        let public_key = match (&self.public_key, &pair) {
            (Some(key), _) => *key,
            (None, Some(pair)) => pair.public(),
            (None, None) => bail!("there is no key"),
        };
        let request = AddDeviceRequest {
            name: self.name.clone(),
            user: self.user.clone(),
            location,
            public_key: public_key.as_bytes().to_vec(),
            preshared_key: self.preshared_key,
            for_ms: self.lifetime.map_or(0, Span::as_millis),
        };
        let answer = admin.add_device(request).await?.into_inner();
        let config = render(&answer, pair.as_ref())?;
        if let Some(file) = file {
            file.write(&config)?;
        }
        self.report(&answer, &config, context)
    }

    fn report(&self, answer: &AddDeviceResponse, config: &str, context: Context) -> Result<Exit> {
        let mut text = String::new();
        match &self.config_out {
            Some(path) => text.push_str(&format!("The configuration is in {}.\n", path.display())),
            None => text.push_str(config),
        }
        // Without its private key the configuration is of no use to a phone.
        if !self.no_qr && self.public_key.is_none() && !context.output.is_json() {
            text.push_str(&format!("\n{}\n", qr::render(config)?));
        }
        context.output.answer(
            || {
                json!({
                    "device": answer.device.as_ref().map(json_of),
                    "config": config,
                    "portal_url": answer.portal_url,
                    "ca_fingerprint": answer.ca_fingerprint,
                })
            },
            || text,
        )?;
        let ends_ms = answer.device.as_ref().map_or(0, |device| device.ends_ms);
        if ends_ms != 0 {
            context.output.note(&format!(
                "\nThe device is removed at {}.",
                time::text(ends_ms)
            ));
        }
        context.output.note(&format!(
            "\nThe tunnel opens after login: {url}\nFrom a terminal: portcullis login --url {url} --ca-fingerprint {}",
            answer.ca_fingerprint,
            url = answer.portal_url,
        ));
        Ok(Exit::Done)
    }
}

/// A configuration needs the gateway's public key, which control learns from the gateway itself.
async fn require_gateway(admin: &mut AdminClient<Channel>, location: &str) -> Result<()> {
    let gateways = admin
        .list_gateways(ListRequest {})
        .await?
        .into_inner()
        .gateways;
    let known = gateways
        .iter()
        .any(|gateway| gateway.location == location && !gateway.public_key.is_empty());
    if !known {
        bail!(
            "the public key of the gateway of {location} is not known yet: start the gateway first \
             (`portcullis up`, or `portcullis gateway add`, `gateway enroll` and `agent`), then add the device"
        );
    }
    Ok(())
}

fn render(
    answer: &AddDeviceResponse,
    pair: Option<&KeyPair>,
) -> Result<zeroize::Zeroizing<String>> {
    let device = answer
        .device
        .as_ref()
        .context("control answered without the device")?;
    let location = answer
        .location
        .as_ref()
        .context("control answered without the location")?;
    let gateway_key = PublicKey::try_from(answer.gateway_public_key.as_slice())
        .context("control answered without the gateway's public key")?;
    let allowed_ips: Vec<String> = location
        .pools
        .iter()
        .chain(&location.routes)
        .cloned()
        .collect();
    let config = ClientConfig {
        key_pair: pair,
        addresses: &device.addresses,
        dns: &location.dns,
        mtu: location.mtu,
        gateway_key,
        preshared_key: &answer.preshared_key,
        endpoint: &location.endpoint,
        allowed_ips: &allowed_ips,
        persistent_keepalive_s: location.persistent_keepalive_s,
        portal_url: &answer.portal_url,
    };
    Ok(config.render())
}

/// A file that did not exist before. Removed again unless it was written.
struct NewFile<'a> {
    file: fs::File,
    path: &'a Path,
    written: bool,
}

impl<'a> NewFile<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| {
                format!(
                    "cannot create {} (an existing file is never overwritten)",
                    path.display()
                )
            })?;
        Ok(Self {
            file,
            path,
            written: false,
        })
    }

    fn write(mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            // The error that led here is the one to report.
            let _ = fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn inv10_the_file_is_private_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.conf");
        NewFile::create(&path)
            .unwrap()
            .write("[Interface]\n")
            .unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(NewFile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "[Interface]\n");
    }

    #[test]
    fn an_unused_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.conf");
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists());
    }
}
