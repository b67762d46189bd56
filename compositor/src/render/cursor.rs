//! The pointer's picture: our own arrow, or a client's surface cut to 64×64.

use super::enlarge;
use smithay::{
    backend::{allocator::Fourcc, renderer::element::memory::MemoryRenderBuffer},
    utils::Transform,
};

/// Larger pictures could pass for windows or hide a border.
pub(crate) const MAX_CURSOR_PX: i32 = 64;

const ARROW: [&str; 16] = [
    "#          ",
    "##         ",
    "#.#        ",
    "#..#       ",
    "#...#      ",
    "#....#     ",
    "#.....#    ",
    "#......#   ",
    "#.......#  ",
    "#........# ",
    "#.....#####",
    "#..#..#    ",
    "#.# #..#   ",
    "##  #..#   ",
    "#    #..#  ",
    "      ##   ",
];

/// Our own pointer.
#[derive(Debug, Default)]
pub struct CursorArt {
    arrow: Option<(i32, MemoryRenderBuffer)>,
}

impl CursorArt {
    /// The arrow for pictures of this many pixels to one of the desktop.
    pub(crate) fn arrow(&mut self, scale: i32) -> MemoryRenderBuffer {
        if let Some((drawn_for, arrow)) = &self.arrow
            && *drawn_for == scale
        {
            return arrow.clone();
        }
        let width = ARROW[0].len();
        let pixels: Vec<u8> = ARROW
            .iter()
            .flat_map(|row| row.bytes())
            .flat_map(|cell| match cell {
                b'#' => [0, 0, 0, 255],
                b'.' => [255, 255, 255, 255],
                _ => [0, 0, 0, 0],
            })
            .collect();
        let size = (
            i32::try_from(width).unwrap_or(1),
            i32::try_from(ARROW.len()).unwrap_or(1),
        );
        let arrow = MemoryRenderBuffer::from_slice(
            &enlarge(&pixels, width, scale),
            Fourcc::Argb8888,
            (size.0 * scale, size.1 * scale),
            scale,
            Transform::Normal,
            None,
        );
        self.arrow = Some((scale, arrow.clone()));
        arrow
    }
}
