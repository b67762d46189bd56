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

use super::{cursor::MAX_CURSOR_PX, label::Label};
use crate::{
    domain::Colour,
    layout::{BORDER_PX, POPUP_BORDER_PX, Rect, TITLE_PX, WindowId},
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

/// Everything on the desktop.
pub(crate) fn build<R>(state: &mut State, renderer: &mut R) -> Vec<SceneElement<R>>
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let mut elements = Vec::new();
    cursor(state, renderer, &mut elements);
    layers(state, renderer, &mut elements, true);
    let order: Vec<WindowId> = state.layout.stack().rev().map(|w| w.id).collect();
    for id in order {
        popups(state, renderer, &mut elements, id);
        window(state, renderer, &mut elements, id);
    }
    layers(state, renderer, &mut elements, false);
    elements
}

/// The host's panels and menus, above or below all windows.
fn layers<R>(state: &State, renderer: &mut R, elements: &mut Vec<SceneElement<R>>, above: bool)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    for layer in state.shell.layers_shown(above) {
        let surface = layer.surface.wl_surface();
        if !surface.is_alive() {
            continue;
        }
        let Rect { x, y, w, h } = layer.rect;
        let cut = Rectangle::<i32, Physical>::new((x, y).into(), (w, h).into());
        tree(renderer, elements, surface, Point::from((x, y)), cut);
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
    let mut elements = Vec::new();
    content(renderer, &mut elements, &surface, rect);
    Some((elements, rect))
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

fn window<R>(state: &mut State, renderer: &mut R, elements: &mut Vec<SceneElement<R>>, id: WindowId)
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
    let framed = client.grown(0, TITLE_PX, 0, 0);
    window.art.border(elements, framed, BORDER_PX, colour);
    window.art.title_bar(renderer, elements, client, label);
    let surface = window.surface().clone();
    content(renderer, elements, &surface, client);
    window.art.ground(elements, client, BEHIND_CLIENT);
}

fn popups<R>(
    state: &mut State,
    renderer: &mut R,
    elements: &mut Vec<SceneElement<R>>,
    root: WindowId,
) where
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
        popup.art.border(elements, rect, POPUP_BORDER_PX, colour);
        let surface = popup.surface.wl_surface().clone();
        content(renderer, elements, &surface, rect);
        popup.art.ground(elements, rect, BEHIND_CLIENT);
    }
}

/// A client's surfaces, cut to the rectangle that the client has.
fn content<R>(
    renderer: &mut R,
    elements: &mut Vec<SceneElement<R>>,
    surface: &WlSurface,
    client: Rect,
) where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    if !surface.is_alive() {
        return;
    }
    let geometry = window_geometry(surface);
    let corner = Point::<i32, Physical>::from((
        client.x.saturating_sub(geometry.x),
        client.y.saturating_sub(geometry.y),
    ));
    let cut =
        Rectangle::<i32, Physical>::new((client.x, client.y).into(), (client.w, client.h).into());
    tree(renderer, elements, surface, corner, cut);
}

fn tree<R>(
    renderer: &mut R,
    elements: &mut Vec<SceneElement<R>>,
    surface: &WlSurface,
    corner: Point<i32, Physical>,
    cut: Rectangle<i32, Physical>,
) where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let all: Vec<WaylandSurfaceRenderElement<R>> =
        render_elements_from_surface_tree(renderer, surface, corner, 1.0, 1.0, Kind::Unspecified);
    elements.extend(
        all.into_iter()
            .filter_map(|element| CropRenderElement::from_element(element, 1.0, cut))
            .map(SceneElement::Surface),
    );
}

fn cursor<R>(state: &mut State, renderer: &mut R, elements: &mut Vec<SceneElement<R>>)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    if !state.pointing.seen {
        return;
    }
    let at = state.pointing.cell();
    if let CursorImageStatus::Surface(surface) = &state.cursor
        && !surface.is_alive()
    {
        state.cursor = CursorImageStatus::default_named();
    }
    match &state.cursor {
        CursorImageStatus::Hidden => {}
        CursorImageStatus::Surface(surface) => {
            let hotspot = with_states(surface, |states| {
                let data = states.data_map.get::<Mutex<CursorImageAttributes>>()?;
                data.lock().ok().map(|attributes| attributes.hotspot)
            });
            let untrusted = hotspot.unwrap_or_default();
            // A hotspot outside the picture would show it away from the pointer.
            let corner = Point::<i32, Physical>::from((
                at.x - untrusted.x.clamp(0, MAX_CURSOR_PX - 1),
                at.y - untrusted.y.clamp(0, MAX_CURSOR_PX - 1),
            ));
            small(renderer, elements, surface, corner);
        }
        CursorImageStatus::Named(_) if state.draws_cursor() => {
            let element = MemoryRenderBufferRenderElement::from_buffer(
                renderer,
                Point::<i32, Physical>::from((at.x, at.y)).to_f64(),
                &state.cursor_art.arrow,
                None,
                None,
                None,
                Kind::Cursor,
            );
            if let Ok(element) = element {
                elements.push(SceneElement::Memory(element));
            }
        }
        CursorImageStatus::Named(_) => {}
    }
    if let Some(drag) = &state.drag
        && let Some(icon) = drag.icon.clone().filter(Resource::is_alive)
    {
        let offset = drag.icon_offset;
        small(
            renderer,
            elements,
            &icon,
            Point::from((at.x + offset.x, at.y + offset.y)),
        );
    }
}

/// A picture at the pointer, cut to 64×64.
fn small<R>(
    renderer: &mut R,
    elements: &mut Vec<SceneElement<R>>,
    surface: &WlSurface,
    corner: Point<i32, Physical>,
) where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let cut = Rectangle::new(corner, (MAX_CURSOR_PX, MAX_CURSOR_PX).into());
    tree(renderer, elements, surface, corner, cut);
}
