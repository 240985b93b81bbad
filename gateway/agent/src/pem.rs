//! PEM (RFC 7468), the encoding that the TLS configuration takes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    #[test]
    fn what_is_encoded_can_be_read_back() {
        let der: Vec<u8> = (0..200).collect();
        let pem = super::encode("CERTIFICATE", &der);
        assert_eq!(
            CertificateDer::from_pem_slice(pem.as_bytes())
                .expect("PEM")
                .as_ref(),
            der
        );
    }
}
