"use strict";
const by=id=>document.getElementById(id);
const rows=[...document.querySelectorAll("tr[data-rank]")];
const number=(r,k)=>r.dataset[k]===""?Infinity:Number(r.dataset[k]);
const orders={rank:(a,b)=>number(a,"rank")-number(b,"rank"),score:(a,b)=>number(a,"score")-number(b,"score")};
function show(){
const device=by("by-device").value.toLowerCase(),app=by("by-app").value.toLowerCase();
const behaviour=by("by-behaviour").value;let shown=0;
rows.sort(orders[by("sort").value]||orders.rank);
for(const row of rows){
const card=by("w"+row.dataset.rank);
const keep=row.dataset.device.toLowerCase().includes(device)&&row.dataset.app.toLowerCase().includes(app)
&&(!behaviour||row.dataset.behaviours.split(" ").includes(behaviour));
row.hidden=card.hidden=!keep;shown+=keep;
row.parentNode.append(row);card.parentNode.append(card);
}
const total=Number(by("tools").dataset.total);
by("shown").textContent=shown+" of "+total+" ranked windows"+(rows.length<total?" ("+rows.length+" on this page)":"");
}
async function copy(button){
const source=by(button.dataset.copy);let word="Copied";
try{await navigator.clipboard.writeText(source.textContent)}
catch{getSelection().selectAllChildren(source);word="Selected; copy it with the keyboard"}
button.nextElementSibling.textContent=word;
}
if(rows.length){by("tools").hidden=false;
for(const id of ["by-device","by-app","by-behaviour","sort"])by(id).addEventListener("input",show);show()}
for(const button of document.querySelectorAll("button[data-copy]")){
button.hidden=false;button.addEventListener("click",()=>copy(button))}
