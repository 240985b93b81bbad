//! A certificate in files that somebody else renews.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::check::{CertificateError, Checked, check};
use crate::webauthn::PortalName;

/// A chain has a few certificates of a few kilobytes.
const MOST: u64 = 256 * 1024;

pub(super) fn read(
    certificate: &Path,
    key: &Path,
    name: &PortalName,
    now_ms: i64,
) -> Result<Checked, CertificateError> {
    let lacks = |path: &Path, what| CertificateError::Pem {
        path: path.into(),
        what,
    };
    let text = content(certificate, false)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| lacks(certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(lacks(certificate, "certificate"));
    }
    let text = content(key, true)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| lacks(key, "private key"))?;
    check(chain, key, name, now_ms)
}

/// Asks what was opened, not what the path leads to by then.
fn content(path: &Path, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let failed = |source| CertificateError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MOST {
        return Err(CertificateError::Size {
            path: path.into(),
            most: MOST,
        });
    }
    if is_secret && metadata.permissions().mode() & 0o007 != 0 {
        return Err(CertificateError::Open(path.into()));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(metadata.len() as usize));
    file.take(MOST).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}
