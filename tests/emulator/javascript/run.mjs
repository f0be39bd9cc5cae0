// Runs all scenarios at once and prints what became of each: the error's text, or nothing.

import * as scenarios from './scenarios.mjs'

const outcomes = {}
await Promise.all(
  Object.entries(scenarios).map(async ([name, scenario]) => {
    try {
      await scenario()
      outcomes[name] = ''
    } catch (error) {
      outcomes[name] = String(error?.stack ?? error)
    }
  })
)
console.log(JSON.stringify(outcomes))
process.exit()
