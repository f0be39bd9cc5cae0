// Runs all scenarios concurrently and prints the outcome of each: the text of its error, or nothing.

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
