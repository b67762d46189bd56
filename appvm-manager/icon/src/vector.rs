//! SVG: shapes only. No text (there are no fonts here), no pictures inside, nothing from outside.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::roxmltree::{Document, ParsingOptions};
use resvg::usvg::{ImageHrefResolver, Options, Tree};

use crate::error::DecodeError;

/// Elements, texts and comments together. Real icons have hundreds.
const MAX_NODES: u32 = 20_000;

/// Draws a file into a square, at its own proportions. Gives straight alpha.
pub fn render(untrusted_text: &str, side: u32) -> Result<Vec<u8>, DecodeError> {
    // Entities in document types are common in icons of some programs; the parser limits how deep
    // and how often they unfold, and the count of nodes limits the rest.
    let parsing = ParsingOptions {
        allow_dtd: true,
        nodes_limit: MAX_NODES,
    };
    let document = Document::parse_with_options(untrusted_text, parsing)?;
    let options = Options {
        image_href_resolver: ImageHrefResolver {
            resolve_data: Box::new(|_, _, _| None),
            resolve_string: Box::new(|_, _| None),
        },
        ..Options::default()
    };
    let tree = Tree::from_xmltree(&document, &options)?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let scale = side as f32 / width.max(height);
    if !scale.is_finite() || scale <= 0.0 {
        return Err(DecodeError::Empty);
    }
    let middle = |length: f32| (side as f32 - length * scale) / 2.0;
    let place = Transform::from_scale(scale, scale).post_translate(middle(width), middle(height));
    let mut pixmap = Pixmap::new(side, side).ok_or(DecodeError::Empty)?;
    resvg::render(&tree, place, &mut pixmap.as_mut());
    Ok(pixmap
        .pixels()
        .iter()
        .flat_map(|pixel| {
            let colour = pixel.demultiply();
            [colour.red(), colour.green(), colour.blue(), colour.alpha()]
        })
        .collect())
}
