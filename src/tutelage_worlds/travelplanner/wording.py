"""What an agent is told about its work, in our own words."""

from typing import Final

from tutelage_worlds.travelplanner.env import Mode

INTRO: Final = """\
You plan a journey for somebody who says where, when and for how much. The plan must hold what they
ask for and be sensible: it begins and ends in the city of departure, names only what the tables
have, in the city of that day, repeats no restaurant and no attraction, stays at least as long as an
accommodation asks for, and does not mix a car of one's own with flights or taxis. Who drives fits
five to a car, a taxi takes four, and a group may need several rooms."""
GATHER: Final = """\
First gather what is needed, one action at a time:
FlightSearch[Departure City, Destination City, Date] - flights, the date as 2022-03-16
GoogleDistanceMatrix[Origin, Destination, Mode] - roads; the mode is self-driving or taxi
AccommodationSearch[City], RestaurantSearch[City], AttractionSearch[City] - what a city has
CitySearch[State] - the cities of a state
NotebookWrite[Short Description] - notes what the last search found
Planner[Query] - ends the search: nothing but the notes and this query is shown to the planner
The same action three times in a row, or one tool used wrongly four times, ends it all. Then plan:
"""
PLAN: Final = """\
CostEnquiry[{"people_number": 2, "day": 1, "current_city": "...", "transportation": "...",
"breakfast": "...", "attraction": "...", "lunch": "...", "dinner": "...", "accommodation": "..."}] -
tells what one day costs
Finish[plan] - hands the plan in and ends the work
The plan has these lines for each day, with "-" where nothing is needed; attractions end with ";":
Day 1:
Current City: from Ash to Elm
Transportation: Flight Number: F0000001, from Ash to Elm, Departure Time: 05:38, Arrival Time: 07:46
Breakfast: -
Attraction: Old Mill, Elm;River Park, Elm;
Lunch: Blue Pot, Elm
Dinner: Corner Oven, Elm
Accommodation: Quiet Room, Elm
By car, the transportation is: Self-driving, from Ash to Elm (or: Taxi, from Ash to Elm)."""
BRIEF: Final = """\
The plan has one line for each day, seven things between semicolons, "-" where nothing is needed:
city ; transportation ; breakfast ; attractions ; lunch ; dinner ; accommodation
from Ash to Elm ; F0000001 ; - ; - ; - ; - ; Quiet Room
Elm ; - ; Blue Pot ; Old Mill | River Park ; Red Pan ; Corner Oven ; Quiet Room
Transportation is a flight's number, drive or taxi."""


def instructions(mode: Mode, *, brief: bool) -> str:
    """What the plan must be, the tools, and how the plan is written."""
    gather = GATHER if mode == "two-stage" else ""
    return f"{INTRO}\n\n{gather}{BRIEF if brief else PLAN}"
