//! A QR code in the terminal.

use anyhow::{Context as _, Result};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The code in half blocks, two modules to a character, light on a dark terminal.
///
/// Every module is drawn, the light ones too, so that phones find the quiet zone around it.
pub(crate) fn render(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .context("the configuration is too long for a QR code; use --no-qr")?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_becomes_a_square_of_half_blocks() {
        let text = "[Interface]\nAddress = 10.77.0.2/32\n".repeat(8);
        let image = render(&text).unwrap();
        let widths: Vec<usize> = image.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]));
        assert_eq!(widths.len(), widths[0].div_ceil(2));
        assert!(image.chars().all(|c| " ▄▀█\n".contains(c)));
    }

    #[test]
    fn too_much_text_is_an_error() {
        assert!(render(&"x".repeat(10_000)).is_err());
    }
}
