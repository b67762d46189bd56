//! The pointer's picture: our own arrow, or a client's surface cut to 64×64.

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
#[derive(Debug)]
pub struct CursorArt {
    pub(crate) arrow: MemoryRenderBuffer,
}

impl Default for CursorArt {
    fn default() -> Self {
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
            &pixels,
            Fourcc::Argb8888,
            size,
            1,
            Transform::Normal,
            None,
        );
        Self { arrow }
    }
}
