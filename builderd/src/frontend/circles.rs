//! Stages that use each other in a circle.

use dockerfile::Lines;

use super::plan::{Plan, Step};
use super::{Error, Location, Problem};

impl Plan {
    /// A stage that copies from itself, directly or through others, can never be built.
    pub(super) fn refuse_circles(&self) -> Result<(), Error> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let uses: Vec<Vec<(usize, Lines)>> = self
            .stages
            .iter()
            .map(|stage| {
                let of_step = |step: &Step| {
                    let lines = step.command.lines;
                    let sources: Vec<_> = step
                        .sources
                        .iter()
                        .flatten()
                        .map(|source| (*source, lines))
                        .collect();
                    sources
                };
                stage.steps.iter().flat_map(of_step).collect()
            })
            .collect();
        let mut marks = vec![Mark::New; self.stages.len()];
        for start in 0..self.stages.len() {
            // A file may have more stages than a thread has stack, so the way is kept by hand: stages, and how many of
            // their uses have been followed.
            let mut way = vec![(start, 0)];
            if marks[start] != Mark::New {
                continue;
            }
            marks[start] = Mark::Open;
            while let Some((at, followed)) = way.last_mut() {
                let Some(&(source, _)) = uses[*at].get(*followed) else {
                    marks[*at] = Mark::Done;
                    way.pop();
                    continue;
                };
                *followed += 1;
                match marks[source] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[source] = Mark::Open;
                        way.push((source, 0));
                    }
                    Mark::Open => {
                        let lines = way
                            .iter()
                            .map(|(at, followed)| uses[*at][followed - 1].1)
                            .collect();
                        let problem = Problem::Circular(self.stages[start].name.clone());
                        let location = Some(Box::new(Location { lines, source: None }));
                        return Err(Error { problem, location });
                    }
                }
            }
        }
        Ok(())
    }
}
