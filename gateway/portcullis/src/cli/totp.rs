//! `portcullis totp`: an authenticator for scripts (RFC 6238).

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::exit::{Exit, UsageError};
use crate::input;
use crate::output::Output;
use crate::time;

#[derive(Debug, Args)]
#[command(after_help = "\
The secret is base32, as shown beside QR codes, or an otpauth:// address, which knows the rest
itself. It is never an argument: those are shown to everybody on the machine.

Examples:
  portcullis totp --secret-file ~/.config/portcullis/seed
  portcullis connect vault … --totp-command 'portcullis totp --secret-file /etc/portcullis-seed'
  pass otp/vpn | portcullis totp --secret-stdin --output json")]
pub(super) struct TotpArgs {
    #[command(flatten)]
    from: From,
    /// How many digits
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(6..=8))]
    digits: u8,
    /// How long a code is good, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    period: u64,
    /// The hash
    #[arg(long, value_enum, default_value_t = Algorithm::Sha1)]
    algorithm: Algorithm,
    /// The code of another time, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct From {
    /// Take the secret from a file that nobody else can read
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Take the secret from stdin
    #[arg(long)]
    secret_stdin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl TotpArgs {
    pub(super) fn run(&self, output: Output) -> Result<Exit> {
        let totp = self.totp(&self.from.secret()?)?;
        let now_s = u64::try_from(time::now_ms() / 1000).context("this machine's clock")?;
        let at_s = self.at.unwrap_or(now_s);
        let code = totp.generate(at_s).to_string();
        output.answer(
            || json!({ "code": code, "valid_for_s": totp.next_step(at_s) - at_s }),
            || code.clone(),
        )?;
        Ok(Exit::Done)
    }

    /// What is wrong with a secret is told without any of it.
    fn totp(&self, secret: &str) -> Result<Totp> {
        let secret = secret.trim();
        if secret.starts_with("otpauth://") {
            let totp = Totp::from_url_unchecked(secret);
            return totp.map_err(|_| {
                UsageError("this otpauth:// address is not understood".into()).into()
            });
        }
        let plain: Zeroizing<String> = Zeroizing::new(
            secret
                .chars()
                .filter(|c| !c.is_whitespace() && *c != '-' && *c != '=')
                .map(|c| c.to_ascii_uppercase())
                .collect(),
        );
        let secret = Secret::try_from_base32(plain.as_str()).ok();
        let Some(secret) = secret.filter(|_| !plain.is_empty()) else {
            bail!(UsageError(
                "the secret is not base32 (letters A to Z and digits 2 to 7)".into()
            ));
        };
        let algorithm = match self.algorithm {
            Algorithm::Sha1 => totp_rs::Algorithm::SHA1,
            Algorithm::Sha256 => totp_rs::Algorithm::SHA256,
            Algorithm::Sha512 => totp_rs::Algorithm::SHA512,
        };
        // Secrets shorter than RFC 4226 asks for are about, and not this command's to refuse.
        Ok(Builder::new()
            .with_algorithm(algorithm)
            .with_digits(self.digits)
            .with_step_duration(self.period)
            .with_secret(secret)
            .build_noncompliant())
    }
}

impl From {
    fn secret(&self) -> Result<Zeroizing<String>> {
        match &self.secret_file {
            Some(file) => input::from_private_file(file),
            None => input::line_of_stdin(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(algorithm: Algorithm, digits: u8) -> TotpArgs {
        TotpArgs {
            from: From {
                secret_file: None,
                secret_stdin: true,
            },
            digits,
            period: 30,
            algorithm,
            at: None,
        }
    }

    /// Appendix B: the ASCII digits 1 to 0, again and again, as long as the hash.
    #[test]
    fn rfc_6238_vectors() {
        let seeds = [
            (Algorithm::Sha1, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
            (
                Algorithm::Sha256,
                "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA",
            ),
            (
                Algorithm::Sha512,
                "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNA",
            ),
        ];
        let codes = [
            (59, ["94287082", "46119246", "90693936"]),
            (1_111_111_109, ["07081804", "68084774", "25091201"]),
            (1_111_111_111, ["14050471", "67062674", "99943326"]),
            (1_234_567_890, ["89005924", "91819424", "93441116"]),
            (2_000_000_000, ["69279037", "90698825", "38618901"]),
            (20_000_000_000, ["65353130", "77737706", "47863826"]),
        ];
        for (at_s, expected) in codes {
            for ((algorithm, seed), expected) in seeds.into_iter().zip(expected) {
                let totp = args(algorithm, 8).totp(seed).unwrap();
                assert_eq!(
                    totp.generate(at_s).to_string(),
                    expected,
                    "{algorithm:?} {at_s}"
                );
            }
        }
    }

    #[test]
    fn an_address_knows_the_rest_itself() {
        let uri =
            "otpauth://totp/Acme:ada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme&digits=8";
        let totp = args(Algorithm::Sha512, 6).totp(uri).unwrap();
        assert_eq!(totp.generate(59).to_string(), "94287082");
    }

    #[test]
    fn secrets_are_read_as_people_write_them_and_never_repeated() {
        let of = |secret: &str| args(Algorithm::Sha1, 8).totp(secret);
        let spaced = of(" gezd gnbv-gy3t qojq gezd gnbv gy3t qojq==\n").unwrap();
        assert_eq!(spaced.generate(59).to_string(), "94287082");
        for bad in ["", " ", "not base32!", "otpauth://hotp/x?secret=hunter2"] {
            let error = of(bad).unwrap_err().to_string();
            assert!(
                !error.contains("hunter2") && !error.contains('!'),
                "{error}"
            );
        }
    }
}
