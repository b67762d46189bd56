//! The list of things to draw, from the front to the back.

use smithay::{
    backend::renderer::{
        ImportAll, ImportMem, Renderer,
        element::{
            Kind,
            memory::MemoryRenderBufferRenderElement,
            render_elements,
            solid::SolidColorRenderElement,
            surface::{WaylandSurfaceRenderElement, render_elements_from_surface_tree},
            utils::CropRenderElement,
        },
    },
    input::pointer::{CursorImageAttributes, CursorImageStatus},
    reexports::wayland_server::{Resource, protocol::wl_surface::WlSurface},
    utils::{Physical, Point, Rectangle},
    wayland::compositor::with_states,
};
use std::sync::Mutex;

use super::{cursor::MAX_CURSOR_PX, drop, label::Label, notice};
use crate::{
    domain::Colour,
    layout::{BORDER_PX, POPUP_BORDER_PX, Point as Cell, Rect, TITLE_PX, WindowId},
    shell::window_geometry,
    state::State,
};

/// The desktop's ground: a colour that no label has.
pub(crate) const GROUND: [f32; 4] = [0.17, 0.19, 0.23, 1.0];
/// What is behind a client's transparent pixels.
const BEHIND_CLIENT: [f32; 4] = [0.0, 0.0, 0.0, 1.0];

render_elements! {
    /// One thing to draw.
    pub(crate) SceneElement<R> where R: ImportAll + ImportMem;
    Surface=CropRenderElement<WaylandSurfaceRenderElement<R>>,
    Solid=SolidColorRenderElement,
    Memory=MemoryRenderBufferRenderElement<R>,
}

/// What is drawn on, at a whole number of pixels to one of the desktop.
pub(crate) struct Canvas<'a, R>
where
    R: Renderer + ImportAll + ImportMem,
{
    pub renderer: &'a mut R,
    pub elements: Vec<SceneElement<R>>,
    pub scale: i32,
}

impl<'a, R> Canvas<'a, R>
where
    R: Renderer + ImportAll + ImportMem,
{
    fn new(renderer: &'a mut R, scale: i32) -> Self {
        Self {
            renderer,
            elements: Vec::new(),
            scale,
        }
    }

    /// A place of the desktop in pixels of the picture.
    pub fn point(&self, at: Cell) -> Point<i32, Physical> {
        let scaled = |v: i32| v.saturating_mul(self.scale);
        (scaled(at.x), scaled(at.y)).into()
    }

    fn rect(&self, rect: Rect) -> Rectangle<i32, Physical> {
        let size = self.point(Cell::new(rect.w, rect.h));
        Rectangle::new(
            self.point(Cell::new(rect.x, rect.y)),
            (size.x, size.y).into(),
        )
    }
}

/// Everything on the desktop, with the pointer or without.
pub(crate) fn build<R>(state: &mut State, renderer: &mut R, pointer: bool) -> Vec<SceneElement<R>>
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let scale = state.scale;
    let canvas = &mut Canvas::new(renderer, scale);
    let area = state.layout.area();
    if let Some(notice) = &mut state.notice {
        notice::show(notice, canvas, area);
    }
    if pointer {
        let at = state.pointing.cell();
        cursor(state, canvas, at);
    }
    drop::mark(state, canvas);
    drag_icon(state, canvas);
    layers(state, canvas, true);
    let order: Vec<WindowId> = state.layout.stack().rev().map(|w| w.id).collect();
    for id in order {
        popups(state, canvas, id);
        window(state, canvas, id);
    }
    layers(state, canvas, false);
    std::mem::take(&mut canvas.elements)
}

/// The host's panels and menus, above or below all windows.
fn layers<R>(state: &State, canvas: &mut Canvas<'_, R>, above: bool)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    for layer in state.shell.layers_shown(above) {
        let surface = layer.surface.wl_surface();
        if !surface.is_alive() {
            continue;
        }
        let corner = Cell::new(layer.rect.x, layer.rect.y);
        tree(canvas, surface, corner, layer.rect);
    }
}

/// Only a client's pixels, at the corner of the picture.
pub(crate) fn window_alone<R>(
    state: &State,
    renderer: &mut R,
    id: WindowId,
) -> Option<(Vec<SceneElement<R>>, Rect)>
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let (surface, rect) = match state.shell.windows.get(&id) {
        Some(window) => (window.surface().clone(), state.layout.get(id)?.client),
        None => {
            let popup = state.shell.popup(id).filter(|p| p.mapped)?;
            let rect = state.shell.popup_rect(&state.layout, id)?;
            (popup.surface.wl_surface().clone(), rect)
        }
    };
    let rect = Rect { x: 0, y: 0, ..rect };
    let mut canvas = Canvas::new(renderer, 1);
    content(&mut canvas, &surface, rect);
    Some((canvas.elements, rect))
}

fn colour_of(state: &State, id: crate::domain::DomainId) -> (Colour, String) {
    // A window whose domain is gone is unmapped in the same turn; black is only for that moment.
    state.domains.get(id).map_or(
        (
            Colour {
                red: 0,
                green: 0,
                blue: 0,
            },
            String::new(),
        ),
        |d| (d.colour, d.name.clone()),
    )
}

fn window<R>(state: &mut State, canvas: &mut Canvas<'_, R>, id: WindowId)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let Some(placed) = state.layout.get(id) else {
        return;
    };
    let client = placed.client;
    let focused = state.layout.focused() == Some(id);
    let Some(domain) = state.shell.windows.get(&id).map(|w| w.domain) else {
        return;
    };
    let (colour, name) = colour_of(state, domain);
    let framed = client.grown(0, TITLE_PX, 0, 0);
    drop::light(state, canvas, id, framed, colour);
    let Some(window) = state.shell.windows.get_mut(&id) else {
        return;
    };
    let label = Label {
        width: client.w,
        domain: name,
        title: window.title.clone(),
        colour,
        focused,
    };
    // The frame comes first: nothing of the client can be above it.
    window.art.border(canvas, framed, BORDER_PX, colour);
    window.art.title_bar(canvas, client, label);
    let surface = window.surface().clone();
    content(canvas, &surface, client);
    window.art.ground(canvas, client, BEHIND_CLIENT);
}

fn popups<R>(state: &mut State, canvas: &mut Canvas<'_, R>, root: WindowId)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let shown: Vec<_> = state
        .shell
        .popups_of(root)
        .rev()
        .filter(|p| p.mapped)
        .map(|p| p.id)
        .collect();
    for id in shown {
        let Some(rect) = state.shell.popup_rect(&state.layout, id) else {
            continue;
        };
        let Some(domain) = state.shell.popup(id).map(|p| p.domain) else {
            continue;
        };
        let (colour, _) = colour_of(state, domain);
        let Some(popup) = state.shell.popups.iter_mut().find(|p| p.id == id) else {
            continue;
        };
        popup.art.border(canvas, rect, POPUP_BORDER_PX, colour);
        let surface = popup.surface.wl_surface().clone();
        content(canvas, &surface, rect);
        popup.art.ground(canvas, rect, BEHIND_CLIENT);
    }
}

/// A client's surfaces, cut to the rectangle that the client has.
fn content<R>(canvas: &mut Canvas<'_, R>, surface: &WlSurface, client: Rect)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    if !surface.is_alive() {
        return;
    }
    let geometry = window_geometry(surface);
    let corner = Cell::new(
        client.x.saturating_sub(geometry.x),
        client.y.saturating_sub(geometry.y),
    );
    tree(canvas, surface, corner, client);
}

/// A tree of surfaces with its corner at a point of the desktop, cut to a rectangle of it.
fn tree<R>(canvas: &mut Canvas<'_, R>, surface: &WlSurface, corner: Cell, cut: Rect)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let scale = f64::from(canvas.scale);
    let (corner, cut) = (canvas.point(corner), canvas.rect(cut));
    let all: Vec<WaylandSurfaceRenderElement<R>> = render_elements_from_surface_tree(
        canvas.renderer,
        surface,
        corner,
        scale,
        1.0,
        Kind::Unspecified,
    );
    canvas.elements.extend(
        all.into_iter()
            .filter_map(|element| CropRenderElement::from_element(element, scale, cut))
            .map(SceneElement::Surface),
    );
}

/// Where the pointer points in its own picture.
fn hotspot(state: &State) -> Cell {
    let CursorImageStatus::Surface(surface) = &state.cursor else {
        return Cell::default();
    };
    let said = with_states(surface, |states| {
        let data = states.data_map.get::<Mutex<CursorImageAttributes>>()?;
        data.lock().ok().map(|attributes| attributes.hotspot)
    });
    let untrusted = said.unwrap_or_default();
    // A hotspot outside the picture would show it away from the pointer.
    Cell::new(
        untrusted.x.clamp(0, MAX_CURSOR_PX - 1),
        untrusted.y.clamp(0, MAX_CURSOR_PX - 1),
    )
}

/// The pointer's picture alone, at the corner, and where that corner is on the desktop. None while
/// there is no pointer to be seen.
#[cfg(feature = "drm")]
pub(crate) fn cursor_alone<R>(
    state: &mut State,
    renderer: &mut R,
) -> Option<(Vec<SceneElement<R>>, Cell)>
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let at = state.pointing.cell();
    let scale = state.scale;
    let mut canvas = Canvas::new(renderer, scale);
    let spot = hotspot(state);
    cursor(state, &mut canvas, spot);
    let corner = Cell::new(at.x - spot.x, at.y - spot.y);
    (!canvas.elements.is_empty()).then_some((canvas.elements, corner))
}

/// The pointer's picture, pointing at a place of the desktop.
fn cursor<R>(state: &mut State, canvas: &mut Canvas<'_, R>, at: Cell)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    if !state.pointing.seen {
        return;
    }
    if let CursorImageStatus::Surface(surface) = &state.cursor
        && !surface.is_alive()
    {
        state.cursor = CursorImageStatus::default_named();
    }
    match &state.cursor {
        CursorImageStatus::Hidden => {}
        CursorImageStatus::Surface(surface) => {
            let spot = hotspot(state);
            small(canvas, surface, Cell::new(at.x - spot.x, at.y - spot.y));
        }
        CursorImageStatus::Named(_) => {
            let place = canvas.point(at).to_f64();
            let arrow = state.cursor_art.arrow(canvas.scale);
            let element = MemoryRenderBufferRenderElement::from_buffer(
                canvas.renderer,
                place,
                &arrow,
                None,
                None,
                None,
                Kind::Cursor,
            );
            if let Ok(element) = element {
                canvas.elements.push(SceneElement::Memory(element));
            }
        }
    }
}

/// What is dragged, at the pointer.
fn drag_icon<R>(state: &State, canvas: &mut Canvas<'_, R>)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let at = state.pointing.cell();
    if let Some(drag) = &state.drag
        && let Some(icon) = drag.icon.clone().filter(Resource::is_alive)
        && state.pointing.seen
    {
        let offset = drag.icon_offset;
        small(canvas, &icon, Cell::new(at.x + offset.x, at.y + offset.y));
    }
}

/// A picture at the pointer, cut to 64×64.
fn small<R>(canvas: &mut Canvas<'_, R>, surface: &WlSurface, corner: Cell)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let cut = Rect::new(corner.x, corner.y, MAX_CURSOR_PX, MAX_CURSOR_PX);
    tree(canvas, surface, corner, cut);
}
