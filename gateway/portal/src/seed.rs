//! An authenticator's secret on a page: to be scanned, or typed.

use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};

/// Screen pixels of a module of the QR code.
const MODULE: u32 = 4;

/// In groups of four, to be typed.
pub(crate) fn grouped(secret: &str) -> String {
    let mut text = String::with_capacity(secret.len() * 2);
    for (index, character) in secret.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push(' ');
        }
        text.push(character);
    }
    text
}

/// The QR code as an element of the page. Nothing where the text is too long for one, which only a
/// very long name makes it: the secret is there to be typed.
pub(crate) fn drawn(text: &str) -> String {
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::M) else {
        return String::new();
    };
    let svg = code
        .render::<svg::Color<'_>>()
        .module_dimensions(MODULE, MODULE)
        .build();
    // Within a page there is no XML declaration.
    let start = svg.find("<svg").unwrap_or(svg.len());
    svg[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_one_element_without_script_or_style() {
        let svg = drawn("otpauth://totp/Portcullis:ada?secret=ABCD");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        for none in ["<?xml", "style", "script", "href", "otpauth"] {
            assert!(!svg.contains(none), "{none}");
        }
        assert_eq!(drawn(&"x".repeat(5000)), "");
        assert_eq!(grouped("ABCDEFGHIJ"), "ABCD EFGH IJ");
    }
}
