//! The menu without a window: what was typed, what is found, what is chosen, what is to be seen.

use crate::bus::{Application, Label};
use crate::menu::matching::{Rank, Searchable, Word};

/// What is typed is cut after this many characters.
const MAX_QUERY: usize = 64;

/// A line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// The domain of the applications below; an index of [`Model::app`].
    Domain(usize),
    /// An application; an index of [`Model::app`].
    Application(usize),
}

/// A step of the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One up.
    Up,
    /// One down.
    Down,
    /// As many up as are seen.
    PageUp,
    /// As many down as are seen.
    PageDown,
    /// To the first.
    First,
    /// To the last.
    Last,
}

/// What is to be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Where.
    pub domain: String,
    /// Which.
    pub app: String,
    /// In a new disposable.
    pub disposable: bool,
}

/// The menu's state.
#[derive(Debug)]
pub struct Model {
    apps: Vec<(Application, Searchable)>,
    query: String,
    rows: Vec<Row>,
    /// An index of `rows`, which is an application; none if there is none.
    chosen: Option<usize>,
    /// The first row that is seen.
    top: usize,
    /// How many rows are seen.
    height: usize,
}

impl Model {
    /// With a list of this many rows.
    pub fn new(height: usize) -> Self {
        Model {
            apps: Vec::new(),
            query: String::new(),
            rows: Vec::new(),
            chosen: None,
            top: 0,
            height: height.max(2),
        }
    }

    /// The applications are these now. What is chosen stays chosen, if it still exists.
    pub fn set_applications(&mut self, mut apps: Vec<Application>) {
        let chosen = self
            .chosen_app()
            .map(|app| (app.domain.clone(), app.app.clone()));
        apps.sort_by_cached_key(|app| {
            (app.domain.clone(), app.name.to_lowercase(), app.app.clone())
        });
        self.apps = apps
            .into_iter()
            .map(|app| {
                let searchable = Searchable::new(&app);
                (app, searchable)
            })
            .collect();
        self.search();
        let again = self.rows.iter().position(|row| match (row, &chosen) {
            (Row::Application(index), Some((domain, id))) => self
                .app(*index)
                .is_some_and(|app| app.domain == *domain && app.app == *id),
            _ => false,
        });
        if again.is_some() {
            self.chosen = again;
            self.show_chosen();
        }
    }

    /// As it is when it opens.
    pub fn reset(&mut self) {
        self.query.clear();
        self.search();
    }

    /// What was typed.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// Adds what was typed just now.
    pub fn type_text(&mut self, text: &str) {
        let room = MAX_QUERY.saturating_sub(self.query.chars().count());
        let before = self.query.len();
        self.query
            .extend(text.chars().filter(|c| !c.is_control()).take(room));
        if self.query.len() != before {
            self.search();
        }
    }

    /// Takes the last character away.
    pub fn erase(&mut self) {
        if self.query.pop().is_some() {
            self.search();
        }
    }

    /// Takes the last word away.
    pub fn erase_word(&mut self) {
        let kept = self.query.trim_end();
        let kept = kept.rfind(' ').map_or(0, |at| at + 1);
        self.query.truncate(kept);
        self.search();
    }

    /// Finds and groups: the domain with the best application first, and in each the best first;
    /// what is equal goes by name, so that the same text always gives the same list.
    fn search(&mut self) {
        let words = Word::all(&self.query);
        let mut found: Vec<((Rank, u32), usize)> = self
            .apps
            .iter()
            .enumerate()
            .filter_map(|(index, (_, searchable))| Some((searchable.rank(&words)?, index)))
            .collect();
        // `apps` is sorted by domain and name, and so is `found`: each domain is one run of it.
        let domain = |index: usize| self.apps.get(index).map(|(app, _)| app.domain.as_str());
        let mut groups: Vec<&mut [((Rank, u32), usize)]> = found
            .chunk_by_mut(|a, b| domain(a.1) == domain(b.1))
            .collect();
        for group in &mut groups {
            group.sort_by_key(|(rank, _)| *rank);
        }
        groups.sort_by_key(|group| group.first().map(|(rank, _)| *rank));
        self.rows.clear();
        for group in groups {
            if let Some((_, first)) = group.first() {
                self.rows.push(Row::Domain(*first));
            }
            self.rows
                .extend(group.iter().map(|(_, index)| Row::Application(*index)));
        }
        self.top = 0;
        self.chosen = self.next_app(0, true);
    }

    /// The nearest application's row from here on, in this direction.
    fn next_app(&self, from: usize, down: bool) -> Option<usize> {
        let is_app = |at: &usize| matches!(self.rows.get(*at), Some(Row::Application(_)));
        if down {
            (from..self.rows.len()).find(is_app)
        } else {
            (0..(from + 1).min(self.rows.len())).rev().find(is_app)
        }
    }

    /// Moves the choice. At the ends it goes round by single steps, and stops by others.
    pub fn step(&mut self, step: Step) {
        let (Some(chosen), Some(last)) = (self.chosen, self.rows.len().checked_sub(1)) else {
            return;
        };
        let first_app = self.next_app(0, true);
        let last_app = self.next_app(last, false);
        let page = self.height - 1;
        let target = match step {
            Step::Up => match chosen.checked_sub(1) {
                Some(above) => self.next_app(above, false).or(last_app),
                None => last_app,
            },
            Step::Down => self.next_app(chosen + 1, true).or(first_app),
            Step::PageUp => self
                .next_app(chosen.saturating_sub(page), false)
                .or(first_app),
            Step::PageDown => self.next_app((chosen + page).min(last), true).or(last_app),
            Step::First => first_app,
            Step::Last => last_app,
        };
        self.chosen = target;
        self.show_chosen();
    }

    /// Moves what is seen, without the choice.
    pub fn scroll(&mut self, rows: isize) {
        let most = self.rows.len().saturating_sub(self.height);
        self.top = self.top.saturating_add_signed(rows).min(most);
    }

    fn show_chosen(&mut self) {
        let Some(chosen) = self.chosen else { return };
        // With the domain's line above the first of its applications.
        let above = match chosen.checked_sub(1).map(|at| self.rows.get(at)) {
            Some(Some(Row::Domain(_))) => chosen - 1,
            _ => chosen,
        };
        if above < self.top {
            self.top = above;
        } else if chosen >= self.top + self.height {
            self.top = chosen + 1 - self.height;
        }
    }

    /// Chooses a row that is an application.
    pub fn choose(&mut self, row: usize) {
        if matches!(self.rows.get(row), Some(Row::Application(_))) {
            self.chosen = Some(row);
        }
    }

    /// What the choice is to do.
    pub fn launch(&self, disposable: bool) -> Option<Launch> {
        let app = self.chosen_app()?;
        (!disposable || app.disposable).then(|| Launch {
            domain: app.domain.clone(),
            app: app.app.clone(),
            disposable,
        })
    }

    /// The application that is chosen.
    pub fn chosen_app(&self) -> Option<&Application> {
        match self.rows.get(self.chosen?)? {
            Row::Application(index) => self.app(*index),
            Row::Domain(_) => None,
        }
    }

    /// The row that is chosen.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// An application.
    pub fn app(&self, index: usize) -> Option<&Application> {
        self.apps.get(index).map(|(app, _)| app)
    }

    /// The label of the row's domain.
    pub fn label(&self, row: Row) -> Option<&Label> {
        let (Row::Domain(index) | Row::Application(index)) = row;
        self.app(index).map(|app| &app.label)
    }

    /// The rows that are seen, with their numbers.
    pub fn visible(&self) -> impl Iterator<Item = (usize, Row)> {
        self.rows
            .iter()
            .copied()
            .enumerate()
            .skip(self.top)
            .take(self.height)
    }

    /// How many applications are found, and how many there are.
    pub fn counts(&self) -> (usize, usize) {
        let found = self
            .rows
            .iter()
            .filter(|row| matches!(row, Row::Application(_)));
        (found.count(), self.apps.len())
    }

    /// The part of the list that is seen: from and to, each of 0 to 1.
    pub fn view(&self) -> (f32, f32) {
        let all = self.rows.len().max(1) as f32;
        let end = (self.top + self.height).min(self.rows.len());
        (self.top as f32 / all, end as f32 / all)
    }
}

#[cfg(test)]
mod tests;
